// Draws the curves of a page with uPlot, in its colours and in the form of its language.
"use strict";
(function () {
  const language = document.documentElement.lang;
  const form = (digits, more) => new Intl.NumberFormat(language, { maximumFractionDigits: digits, ...more });
  const whole = form(0), tenth = form(1), fine = form(4), share = form(1, { style: "percent" });
  const change = form(1, { style: "percent", signDisplay: "exceptZero" });
  const units = {
    count: (value) => whole.format(value),
    days: (value) => tenth.format(value),
    score: (value) => fine.format(value),
    share: (value) => share.format(value),
    change: (value) => change.format(value),
    ms: (value) => tenth.format(value) + " ms",
    seconds: (value) => tenth.format(value) + " s",
  };
  // A training takes a hundred times as long as a check.
  const scales = { seconds: { distr: 3 } };
  // As the pages write days: 28 Nov 2026, 28/11/2026.
  const [region, day, month] = language === "en" ? ["en-GB", "numeric", "short"] : [language, "2-digit", "2-digit"];
  const inLegend = new Intl.DateTimeFormat(region, { day, month, year: "numeric", timeZone: "UTC" });
  const onAxis = new Intl.DateTimeFormat(region, { day, month, timeZone: "UTC" });
  const write = (formatter, second) => formatter.format(new Date(second * 1000));
  const drawn = [];

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // What was known badly, such as the first days, does not press all else to the ground.
  const usualWidths = 4;

  function reach(chart) {
    const widths = chart.lines.flatMap((line) => line.high.map((high, n) => (high === null ? null : high - line.low[n])));
    const known = widths.filter((width) => width !== null).sort((one, other) => one - other);
    const most = known.length ? usualWidths * known[Math.floor(known.length / 2)] : Infinity;
    const ends = chart.lines.flatMap((line) =>
      line.values.flatMap((value, n) => {
        if (value === null) return [];
        if (!known.length || !line.high.length) return [value];
        const end = line.high[n];
        return end !== null && end - line.low[n] <= most ? [line.low[n], end] : [];
      }));
    const all = [...ends, ...(chart.zone || []), 0];
    const [low, high] = [Math.min(...all), Math.max(...all)];
    return [low * 1.05, high > low ? high * 1.05 : 1];
  }

  // Behind the curves: what is of no interest, and the intervals.
  function drawBehind(plot, chart, times) {
    const at = (value, scale) => plot.valToPos(value, scale, true);
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    if (chart.zone) {
      ctx.globalAlpha = 0.6;
      ctx.fillStyle = colour("--line");
      ctx.fillRect(bbox.left, at(chart.zone[1], "y"), bbox.width, at(chart.zone[0], "y") - at(chart.zone[1], "y"));
    }
    ctx.globalAlpha = 0.18;
    ctx.fillStyle = colour("--bad");
    for (const day of chart.marks) {
      const [from, to] = [0, 1].map((more) => at(Date.parse(day) / 1000 + (more - 0.5) * 86400, "x"));
      ctx.fillRect(from, bbox.top, to - from, bbox.height);
    }
    chart.lines.forEach(function (line, n) {
      ctx.fillStyle = colour(`--c${n + 1}`);
      const known = line.high.map((high, n) => (high === null ? -1 : n)).filter((n) => n >= 0);
      ctx.beginPath();
      for (const n of known) ctx.lineTo(at(times[n], "x"), at(line.high[n], "y"));
      for (const n of known.reverse()) ctx.lineTo(at(times[n], "x"), at(line.low[n], "y"));
      ctx.fill();
    });
    ctx.restore();
  }

  function draw(place) {
    const chart = JSON.parse(place.dataset.chart);
    const unit = (value) => (value === null || value === undefined ? "–" : units[chart.unit](value));
    const times = chart.days.map((day) => (chart.steps ? Number(day) : Date.parse(day) / 1000));
    const name = (formatter, place) => (chart.steps ? whole.format(place) : write(formatter, place));
    const lines = chart.lines.map((line, n) => ({
      label: line.name,
      stroke: colour(`--c${n + 1}`),
      width: 1.75,
      spanGaps: chart.dots,
      points: { show: chart.dots ? undefined : false, size: 5 },
      value: (_, value) => unit(value),
    }));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const values = chart.lines.map((line) => line.values);
    const last = times.findLastIndex((_, n) => values.some((line) => line[n] !== null));
    // While nobody points at a day, the legend has the values of the last one.
    const showLast = (plot) => plot.cursor.idx ?? plot.setLegend({ idx: last });
    // As wide as the longest value; not measured again while uPlot settles where everything goes.
    const wideEnough = (plot, shown, at, round) => (round > 1 ? plot.axes[at]._size : 22 + 7 * Math.max(3, ...(shown ?? []).map((one) => one.length)));
    const options = {
      hooks: { ready: [showLast], setCursor: [showLast], drawAxes: [(plot) => drawBehind(plot, chart, times)] },
      width: place.clientWidth,
      height: 190,
      tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "UTC"),
      series: [{ value: (_, at) => (at ? name(inLegend, at) : "–"), label: place.dataset.day }, ...lines],
      axes: [
        { ...axis, values: (_, places) => places.map((at) => name(onAxis, at)), space: 64, ...(chart.steps && { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }) },
        { ...axis, values: (_, values) => values.map(unit), size: wideEnough },
      ],
      scales: { x: { time: !chart.steps }, y: chart.steps ? {} : scales[chart.unit] || { range: reach(chart) } },
      cursor: { drag: { x: false, y: false } },
    };
    const plot = new uPlot(options, [times, ...values], place);
    place.querySelectorAll(".u-series").forEach(function (row, n) {
      if (n && chart.lines[n - 1].own) row.setAttribute("translate", "no");
    });
    return plot;
  }

  function drawAll() {
    for (const one of drawn.splice(0)) one.destroy();
    for (const place of document.querySelectorAll(".chart")) drawn.push(draw(place));
  }
  drawAll();
  new MutationObserver(drawAll).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  let wide = innerWidth;
  addEventListener("resize", function () {
    if (innerWidth === wide) return;
    wide = innerWidth;
    drawAll();
  });
})();
