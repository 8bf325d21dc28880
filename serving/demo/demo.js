"use strict";

const form = document.getElementById("ask");
const value = document.getElementById("value");
const label = document.getElementById("label");
const why = document.getElementById("why");
const list = document.getElementById("list");
const samples = document.getElementById("samples");

const KINDS = {
  user: { prompt: "Mã khách hàng", path: "/recommend", body: (v) => ({ user_id: v }) },
  product: { prompt: "Mã sản phẩm", path: "/similar_items", body: (v) => ({ product_id: v }) },
  search: { prompt: "Ví dụ: kem chống nắng cho da dầu", path: "/search", body: (v) => ({ query: v }) },
};
let examples = { user: [], product: [], search: ["kem chống nắng", "son dưỡng môi", "dau goi"] };
let asked = 0;

const money = (price) => (price === null ? "Chưa có giá" : `${Math.round(price).toLocaleString("vi-VN")} ₫`);
const kind = () => form.elements.kind.value;

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function showPrompt() {
  value.placeholder = label.textContent = KINDS[kind()].prompt;
  samples.replaceChildren(...examples[kind()].map((example) => {
    const button = element("button", "", example.name || example);
    button.type = "button";
    button.addEventListener("click", () => { value.value = example.id || example; ask(); });
    return button;
  }));
}

function reason(answer, asKind, asValue) {
  const model = ` · mô hình ${answer.model_id} · ${answer.latency_ms.toFixed(1)}\u00a0ms`;
  if (!answer.count) return ["Không có sản phẩm nào phù hợp.", "", model];
  if (asKind === "search") return ["Gần nghĩa nhất với ", `“${answer.query}”`, model];
  if (asKind === "product") {
    const how = { content: " (theo mô tả)", popularity: " (chưa có dữ liệu: hàng bán chạy)" };
    return ["Giống với ", `“${answer.product_name}”`, (how[answer.fallback_method] || "") + model];
  }
  if (answer.fallback_method === "popularity") {
    return ["Không chọn riêng cho khách này: ", "hàng đang được ưa chuộng", model];
  }
  if (answer.fallback_method === "content") return ["Theo mô tả những món đã xem ", "", model];
  return ["Gợi ý riêng cho khách ", asValue, model];
}

function show(answer, asKind, asValue) {
  const [before, strong, after] = reason(answer, asKind, asValue);
  why.className = "why";
  why.replaceChildren(before, element("b", "", strong), element("span", "quiet", after));
  list.replaceChildren(...answer.recommendations.map((product) => {
    const row = document.createElement("li");
    const text = document.createElement("div");
    text.append(element("div", "name", product.product_name || product.product_id));
    if (product.brand) text.append(element("div", "brand", product.brand));
    const like = element("button", "like", "Sản phẩm tương tự");
    like.type = "button";
    like.addEventListener("click", () => {
      form.elements.kind.value = "product";
      showPrompt();
      value.value = product.product_id;
      ask();
      scrollTo({ top: 0, behavior: "smooth" });
    });
    row.append(element("span", "rank", product.rank), text, element("span", "price", money(product.price)));
    if (product.reason) row.append(element("div", "reason", product.reason.text.vi));
    row.append(like);
    return row;
  }));
}

function fail(sentence) {
  why.className = "why error";
  why.textContent = sentence;
  list.replaceChildren();
}

async function ask() {
  const turn = ++asked;
  const asKind = kind();
  const asValue = value.value.trim();
  if (!asValue) return;
  const body = { ...KINDS[asKind].body(asValue), topk: 10, placement: "demo" };
  const { brand, min, max, explain } = form.elements;
  if (explain.checked) body.explain = true;
  if (brand.value.trim()) body.brands = [brand.value.trim()];
  if (min.value) body.min_price = Number(min.value);
  if (max.value) body.max_price = Number(max.value);
  try {
    const response = await fetch(KINDS[asKind].path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (turn !== asked) return;
    if (response.ok) show(answer, asKind, asValue);
    else fail(answer.detail || "Dịch vụ không trả lời được.");
  } catch {
    if (turn === asked) fail("Không kết nối được với dịch vụ.");
  }
}

async function start() {
  try {
    const [info, given] = await Promise.all([fetch("/model_info"), fetch("/demo/examples")]);
    if (!info.ok) throw new Error((await info.json()).detail);
    const model = await info.json();
    document.getElementById("model").textContent =
      `${model.model_id} · ${model.users.toLocaleString("vi-VN")} khách hàng · ` +
      `${model.available_items.toLocaleString("vi-VN")} sản phẩm đang bán`;
    if (given.ok) examples = { ...examples, ...(await given.json()) };
  } catch (error) {
    document.getElementById("model").textContent = error.message || "Chưa có mô hình.";
  }
  showPrompt();
  if (examples.user.length) { value.value = examples.user[0].id || examples.user[0]; ask(); }
}

form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
form.addEventListener("change", (event) => {
  if (event.target.name === "kind") { value.value = ""; showPrompt(); }
  if (event.target.name === "explain") ask();
});
start();
