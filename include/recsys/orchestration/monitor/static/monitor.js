// What the pages do by themselves: nothing here is needed to read them, but for the charts.
"use strict";
(function () {
  // In Airflow's frame a link cannot leave the frame; Airflow's own router can be asked to go there.
  function goInAirflow(event) {
    const link = event.target.closest("a[data-airflow]");
    if (!link || window.parent === window) return;
    try {
      window.parent.history.pushState(null, "", link.getAttribute("href"));
      window.parent.dispatchEvent(new PopStateEvent("popstate"));
      event.preventDefault();
    } catch {
      // A frame of another origin: the link opens here.
    }
  }
  document.addEventListener("click", goInAirflow);

  const here = document.querySelector(".top [aria-current=page]");
  if (here) here.scrollIntoView({ inline: "center", block: "nearest" });

  const minutes = Number(document.body.dataset.reload || 0);
  if (minutes) {
    setInterval(function () {
      const typing = document.activeElement && document.activeElement.closest("form");
      if (!document.hidden && !typing) location.reload();
    }, minutes * 60000);
  }
})();
