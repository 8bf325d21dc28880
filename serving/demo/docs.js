// The OpenAPI document for people: each route with its fields, examples of what is asked and
// answered, and a button. Everything is put in as text, never as HTML.
"use strict";

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function resolved(api, schema) {
  const path = schema && schema.$ref;
  return path ? path.slice(2).split("/").reduce((part, key) => part[key], api) : schema;
}

function kind(api, schema) {
  const known = resolved(api, schema) || {};
  const parts = known.anyOf || known.oneOf;
  if (parts) return parts.map((part) => kind(api, part)).join(" or ");
  if (known.type === "array") return "list of " + kind(api, known.items || {});
  const bounds = ["minimum", "maximum", "exclusiveMinimum", "maxLength", "pattern"]
    .filter((key) => known[key] !== undefined)
    .map((key) => `${key} ${known[key]}`);
  return [known.title && known.properties ? known.title : known.type || "anything", ...bounds].join(", ");
}

function fields(api, schema, parent) {
  const known = resolved(api, schema);
  for (const part of known.anyOf || known.oneOf || [known]) {
    const model = resolved(api, part);
    if (!model || !model.properties) continue;
    element("h3", model.title, parent);
    const list = element("ul", undefined, parent);
    for (const [name, field] of Object.entries(model.properties)) {
      const needed = (model.required || []).includes(name) ? " (needed)" : "";
      const item = element("li", undefined, list);
      element("code", name, item);
      const said = resolved(api, field).description || field.description;
      item.append(`${needed}: ${kind(api, field)}${said ? ". " + said : ""}`);
    }
  }
}

const json = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// A block that scrolls within itself, and can be reached with the keyboard for that.
function block(text, parent) {
  const made = element("pre", text, parent);
  made.tabIndex = 0;
  return made;
}

// A field for each parameter of the path and the query; gives the path with what they hold.
function parameters(path, told, box) {
  const given = (told.parameters || []).map((one) => {
    const label = element("label", `${one.name} `, element("p", undefined, box));
    const input = element("input", undefined, label);
    input.value = one.example;
    return [one, input];
  });
  return () => {
    const query = new URLSearchParams();
    let asked = path;
    for (const [one, input] of given) {
      if (one.in === "path") asked = asked.replace(`{${one.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(one.name, input.value);
    }
    return query.size ? `${asked}?${query}` : asked;
  };
}

// The body to send, and a button for each example that puts it there.
function body(content, box) {
  if (!content) return null;
  const examples = Object.values(content.examples);
  const label = element("label", "Body ", element("p", undefined, box));
  const text = element("textarea", json(examples[0].value), label);
  text.rows = 8;
  const choices = element("div", undefined, box);
  choices.className = "samples";
  for (const one of examples) {
    const button = element("button", one.summary, choices);
    button.type = "button";
    button.addEventListener("click", () => { text.value = json(one.value); });
  }
  return text;
}

function answers(told, box) {
  element("h3", "Answers", box);
  for (const [status, one] of Object.entries(told.responses).sort()) {
    element("p", `${status}: ${one.description}`, box);
    for (const content of Object.values(one.content || {})) {
      for (const example of Object.values(content.examples)) {
        const shown = element("details", undefined, box);
        element("summary", `${status}, ${example.summary}`, shown);
        if (example.description) element("p", example.description, shown);
        block(json(example.value), shown);
      }
    }
  }
}

function operation(api, path, method, told, parent) {
  const box = element("details", undefined, parent);
  element("summary", `${method.toUpperCase()} ${path}: ${told.summary}`, box);
  for (const line of (told.description || "").split("\n\n")) element("p", line, box);
  const content = told.requestBody && told.requestBody.content["application/json"];
  if (content) fields(api, content.schema, box);
  const asked = parameters(path, told, box);
  const sent = body(content, box);
  const button = element("button", "Ask", element("p", undefined, box));
  button.className = "ask";
  const answer = block("", box);
  answer.setAttribute("aria-live", "polite");
  answer.hidden = true;
  button.addEventListener("click", async () => {
    const headers = { "Content-Type": "application/json" };
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = `Bearer ${token}`;
    answer.hidden = false;
    try {
      const got = await fetch(asked(), { method: method.toUpperCase(), headers, body: sent && sent.value });
      answer.textContent = `${got.status}\n${await got.text()}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  answers(told, box);
}

async function show() {
  const api = await (await fetch("/openapi.json")).json();
  const place = document.getElementById("operations");
  place.textContent = "";
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(methods)) operation(api, path, method, told, place);
  }
}

// The field stands in a form for password managers; nothing is sent by it.
document.getElementById("who").addEventListener("submit", (event) => event.preventDefault());
show().catch((error) => {
  document.getElementById("operations").textContent = String(error);
});
