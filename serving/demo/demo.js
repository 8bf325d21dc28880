// The page for trying the recommender. Everything is put in as text, never as HTML.
"use strict";

const form = document.getElementById("ask");
const value = document.getElementById("value");
const token = document.getElementById("token");
const rights = document.getElementById("rights");
const place = document.getElementById("answer");

let language = localStorage.getItem("recsys_language") === "en" ? "en" : "vi";
let examples = { user: [], product: [] };
let model = null;
let asked = 0;

const told = () => TEXTS[language];
const locale = () => (language === "vi" ? "vi-VN" : "en-GB");
const number = (count) => count.toLocaleString(locale());
const kind = () => form.elements.kind.value;
const money = (price) => (price === null ? told().noPrice : `${number(Math.round(price))}\u00a0₫`);

function element(tag, className, text, ...inner) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  made.append(...inner);
  return made;
}

class Refused extends Error {
  constructor(status) {
    super(told().problems[status] || told().problem(status));
    this.status = status;
  }
}

async function get(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token.value) headers.Authorization = `Bearer ${token.value}`;
  const sent = body && { method: "POST", body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { headers, ...sent });
  } catch {
    throw new Error(told().unreachable);
  }
  if (!response.ok) throw new Refused(response.status);
  return response.json();
}

// What a request is narrowed down by, and that it is of this page.
function wanted(topk) {
  const { brand, min, max } = form.elements;
  const body = { topk, placement: "demo" };
  if (brand.value.trim()) body.brands = [brand.value.trim()];
  if (min.value) body.min_price = Number(min.value);
  if (max.value) body.max_price = Number(max.value);
  return body;
}

function look(asKind, asValue) {
  form.elements.kind.value = asKind;
  showPrompt();
  value.value = asValue;
  ask();
  scrollTo({ top: 0, behavior: "smooth" });
}

// A place for a picture, which comes when it is known where it is.
function frame(product) {
  const made = element("div", "picture", told().noPicture);
  made.dataset.product = product.product_id;
  return made;
}

async function showPictures() {
  const frames = [...place.querySelectorAll(".picture")];
  const query = new URLSearchParams(frames.map((one) => ["product_id", one.dataset.product]));
  const { pictures } = await get(`/demo/pictures?${query}`);
  for (const one of frames) {
    const address = pictures[one.dataset.product];
    if (!address) continue;
    const image = document.createElement("img");
    image.alt = "";
    image.addEventListener("load", () => one.replaceChildren(image));
    image.src = address;
  }
}

function card(product, ...more) {
  const text = element("div", "", "", element("div", "name", product.product_name || product.product_id));
  if (product.brand) text.append(element("div", "brand", product.brand));
  const price = element("span", "price", money(product.price));
  const row = element("li", "", "", frame(product), text, price, ...more);
  const like = element("button", "like", told().like);
  like.type = "button";
  like.addEventListener("click", () => look("product", product.product_id));
  row.append(like);
  return row;
}

function list(title, note, answer, empty) {
  const part = element("section", "part", "", element("h2", "", title));
  if (note) part.append(element("p", "note", note));
  if (!answer.count) part.append(element("p", "", empty || told().nothing));
  const rows = answer.recommendations.map((product) => {
    const row = card(product, ...(product.reason ? [element("div", "reason", product.reason.text[language])] : []));
    row.prepend(element("span", "rank", product.rank));
    return row;
  });
  part.append(element("ol", "list", "", ...rows));
  part.append(element("p", "quiet", told().madeBy(answer.model_id, number(Number(answer.latency_ms.toFixed(1))))));
  return part;
}

// What the customer did, null where this page may not see it.
async function history(user) {
  try {
    const answer = await get("/demo/customer", { user_id: user });
    return answer.history;
  } catch (error) {
    if (error.status !== 401 && error.status !== 403) throw error;
    rights.hidden = false;
    return null;
  }
}

function past(done) {
  const part = element("section", "part past", "", element("h2", "", told().history));
  if (!done) {
    part.append(element("p", "", token.value ? told().wrongToken : told().hidden));
    return part;
  }
  if (!done.length) part.append(element("p", "", told().noHistory));
  const rows = done.map((one) => {
    const day = new Date(one.at).toLocaleDateString(locale());
    const what = [told().done[one.kind], ...(one.liked ? [] : [told().disliked])].join(", ");
    return card(one, element("div", "reason", `${what} · ${day}`));
  });
  part.append(element("ul", "list", "", ...rows));
  return part;
}

const ASK = {
  async user(user) {
    const done = await history(user);
    // A reason tells what somebody did.
    const answer = await get("/recommend", { ...wanted(10), user_id: user, explain: done !== null });
    const by = { popularity: told().popular, content: told().content, again: told().again };
    const title = by[answer.fallback_method] || told().chosen(user);
    return [list(title, "", answer), past(done)];
  },
  async product(product) {
    const body = { ...wanted(6), explain: true };
    const [similar, together] = await Promise.all([
      get("/similar_items", { ...body, product_id: product }),
      get("/bought_together", { ...body, product_ids: [product] }),
    ]);
    const name = similar.product_name || product;
    return [
      list(told().together(name), told().togetherBy[together.fallback_method], together),
      list(told().similar(name), told().similarBy[similar.fallback_method], similar),
    ];
  },
  async search(query) {
    const answer = await get("/search", { ...wanted(10), query });
    if (!answer.count) return [element("p", "note", told().nothingFound(query))];
    return [list(told().found(query), "", answer)];
  },
};

async function ask() {
  const turn = ++asked;
  const text = value.value.trim();
  if (!text) return;
  let parts;
  try {
    parts = await ASK[kind()](text);
  } catch (error) {
    parts = [element("p", "error", error.message)];
  }
  if (turn !== asked) return;
  place.replaceChildren(...parts);
  if (place.querySelector(".picture")) showPictures().catch(() => {}); // they are no more than pretty
}

function showPrompt() {
  const prompt = told().prompts[kind()];
  value.placeholder = document.getElementById("label").textContent = prompt;
  const samples = document.getElementById("samples");
  samples.setAttribute("aria-label", told().samples);
  const offered = {
    user: examples.user.map(({ id, known }) => [id, known ? told().customer(id) : told().stranger]),
    product: examples.product.map(({ id, name }) => [id, name]),
    search: told().words.map((words) => [words, words]),
  };
  samples.replaceChildren(...offered[kind()].map(([id, name]) => {
    const button = element("button", "", name);
    button.type = "button";
    button.addEventListener("click", () => { value.value = id; ask(); });
    return button;
  }));
}

function speak() {
  document.documentElement.lang = language;
  document.title = told().title;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = told()[one.dataset.text];
  for (const one of document.querySelectorAll("[data-language]")) {
    one.setAttribute("aria-pressed", one.dataset.language === language);
  }
  document.getElementById("model").textContent = model
    ? told().model(model.model_id, number(model.users), number(model.available_items))
    : told().noModel;
  showPrompt();
}

async function start() {
  speak();
  try {
    [model, examples] = await Promise.all([get("/model_info"), get("/demo/examples")]);
  } catch (error) {
    place.replaceChildren(element("p", "error", error.message));
    return;
  }
  speak();
  if (examples.user.length) { value.value = examples.user[0].id; ask(); }
}

form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
form.addEventListener("change", (event) => {
  if (event.target.name === "kind") { value.value = ""; place.replaceChildren(); showPrompt(); }
  if (event.target === token) ask();
});
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    language = button.dataset.language;
    localStorage.setItem("recsys_language", language);
    speak();
    ask();
  });
}
start();
