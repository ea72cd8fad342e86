// Elements, and what all charts share: a tooltip, and a keyboard's way through their marks.
// Whatever comes from the data goes in as text.
const dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "text") element.textContent = value;
      else if (name === "vars") {
        for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
      } else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children || []) if (child) element.append(child);
    return element;
  }
  const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);
  const at = (id) => document.getElementById(id);

  function put(id, ...children) {
    const place = typeof id === "string" ? at(id) : id;
    place.replaceChildren(...children.filter(Boolean));
    return place;
  }

  // lines: [title, [name, value], ...]
  function tip(event, lines) {
    const box = at("tip");
    const [title, ...rest] = lines;
    put(
      box,
      el("strong", { text: title }),
      ...rest.map(([name, value]) => el("span", {}, el("i", { text: name }), el("b", { text: value }))),
    );
    box.hidden = false;
    let { clientX: x, clientY: y } = event;
    if (event.type === "focus" || event.type === "focusin") {
      const mark = event.target.getBoundingClientRect();
      x = mark.left + mark.width / 2;
      y = mark.bottom;
    }
    const { offsetWidth: w, offsetHeight: h } = box;
    const left = Math.max(8, Math.min(x + 14, innerWidth - w - 8));
    const top = y + 16 + h > innerHeight ? Math.max(8, y - h - 12) : y + 16;
    box.style.left = `${left}px`;
    box.style.top = `${top}px`;
  }
  const untip = () => {
    at("tip").hidden = true;
  };

  // A mark that says what it is, to a pointer, to a keyboard and to a screen reader.
  function mark(element, lines, more = {}) {
    const label = lines.map((line) => (Array.isArray(line) ? line.join(" ") : line)).join(", ");
    // An item of a list stays one.
    const role = element.tagName === "LI" ? null : "img";
    fill(element, { role, "aria-label": label, "data-name": lines[0], tabindex: "-1" });
    const on = (event) => {
      tip(event, lines);
      if (more.on) more.on();
    };
    const off = () => {
      untip();
      if (more.off) more.off();
    };
    element.addEventListener("pointermove", on);
    element.addEventListener("pointerleave", off);
    element.addEventListener("focus", on);
    element.addEventListener("blur", off);
    return element;
  }

  const AHEAD = ["ArrowRight", "ArrowDown"];
  const BACK = ["ArrowLeft", "ArrowUp"];
  // One stop of the tab key for all marks of a chart; arrows go from one to the next.
  // columns: marks in a row, where they are a grid.
  function rove(box, marks, columns = 0) {
    if (!marks.length) return;
    let current = 0;
    marks[0].setAttribute("tabindex", "0");
    const go = (to) => {
      if (to < 0 || to >= marks.length) return;
      marks[current].setAttribute("tabindex", "-1");
      current = to;
      marks[current].setAttribute("tabindex", "0");
      marks[current].focus();
      marks[current].scrollIntoView({ block: "nearest", inline: "nearest" });
    };
    box.onfocusin = (event) => {
      const to = marks.indexOf(event.target);
      if (to >= 0 && to !== current) {
        marks[current].setAttribute("tabindex", "-1");
        current = to;
        marks[current].setAttribute("tabindex", "0");
      }
    };
    box.onkeydown = (event) => {
      if (marks.indexOf(event.target) < 0) return;
      const vertical = event.key === "ArrowDown" || event.key === "ArrowUp";
      const step = vertical && columns ? columns : 1;
      if (AHEAD.includes(event.key)) go(current + step);
      else if (BACK.includes(event.key)) go(current - step);
      else if (event.key === "Home") go(0);
      else if (event.key === "End") go(marks.length - 1);
      else if (event.key === "Escape") untip();
      else return;
      event.preventDefault();
    };
  }

  const MOST_LINES = 200;
  // rows of cells: text, or [text, sort of cell]
  function table(caption, heads, rows, most = MOST_LINES) {
    const numeric = heads.map((_, i) => rows.length && rows.every((row) => /^[–<>≤−\d]/.test(row[i])));
    const body = rows.slice(0, most).map((row) =>
      el("tr", {}, ...row.map((cell, i) => el(i ? "td" : "th", {
        text: cell, scope: i ? null : "row", class: numeric[i] ? "number" : null,
      }))),
    );
    const head = el("tr", {}, ...heads.map((text, i) =>
      el("th", { text, scope: "col", class: numeric[i] ? "number" : null })));
    const left = rows.length - body.length;
    return el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", {}, el("caption", { text: caption }), el("thead", {}, head), el("tbody", {}, ...body)),
      left > 0 && el("p", { class: "note", text: `and ${format.counted(left, "row")} more` }),
    );
  }
  // A table within a <details>, made when it is opened.
  function under(id, make) {
    const details = at(id);
    const summary = details.querySelector("summary");
    const show = () => details.replaceChildren(summary, ...(details.open ? [make()] : []));
    details.ontoggle = show;
    show();
  }

  // A choice of one among few: radio buttons that look like one control.
  function choice(name, legend, options, chosen, change) {
    return el(
      "fieldset",
      { class: "choice" },
      el("legend", { text: legend }),
      ...options.map(([value, text, disabled]) => {
        const input = el("input", {
          type: "radio", name, value, disabled, onchange: () => change(value),
        });
        input.checked = value === chosen;
        return el("label", { title: disabled || null }, input, el("span", { text }));
      }),
    );
  }

  return { el, svg, at, put, mark, rove, tip, untip, table, under, choice };
})();
