// Group, version and period: what is chosen, kept by name while newer data comes in.
const filters = (() => {
  const chosen = { group: null, version: null, from: 0, to: 0 };
  let changed = () => {};
  let names = { groups: null, versions: null };
  let count = 1;

  function start(change) {
    changed = change;
  }

  // Keep what is chosen, if newer data still has it.
  function refit(data) {
    const find = (kind, code) => {
      const name = code === null || !names[kind] ? undefined : names[kind][code];
      const to = name === undefined ? -1 : data[kind].names.indexOf(name);
      return to < 0 ? null : to;
    };
    chosen.group = find("groups", chosen.group);
    chosen.version = find("versions", chosen.version);
    const periods = Math.max(1, data.periods.start.length);
    const atEnd = chosen.to === count - 1;
    const was = names.groups === null;
    chosen.from = was ? 0 : Math.min(chosen.from, periods - 1);
    chosen.to = was || atEnd ? periods - 1 : Math.min(chosen.to, periods - 1);
    count = periods;
    names = { groups: data.groups.names, versions: data.versions.names };
    draw(data);
  }

  function draw(data) {
    // What has the focus keeps it while a live page draws itself again.
    const focused = document.activeElement && document.activeElement.id;
    const parts = [
      picker("group", "Process", "All processes", data.groups, model.group),
      picker("version", "Model version", "All versions", data.versions, model.version),
      ...period(data),
    ].filter(Boolean);
    dom.at("filters").hidden = !parts.length;
    dom.put("filters", ...parts, dom.el("button", { type: "button", id: "reset", text: "Reset", onclick: reset }));
    tell(data);
    if (focused && dom.at(focused)) dom.at(focused).focus();
  }

  function picker(kind, label, all, { names: list, rest }, show) {
    const size = list.length + (rest ? 1 : 0);
    if (size < 2) return null;
    const select = dom.el(
      "select",
      {
        id: `pick-${kind}`,
        onchange: () => {
          chosen[kind] = select.value === "" ? null : Number(select.value);
          changed();
        },
      },
      dom.el("option", { value: "", text: all }),
      ...Array.from({ length: size }, (_, code) =>
        dom.el("option", { value: String(code), text: show(code) })),
    );
    select.value = chosen[kind] === null ? "" : String(chosen[kind]);
    return dom.el("label", { class: "picker" }, dom.el("span", { text: label }), select);
  }

  function period(data) {
    const last = data.periods.start.length - 1;
    if (last < 1) return [];
    const slider = (key, label) => {
      const input = dom.el("input", {
        type: "range", min: "0", max: String(last), step: "1", id: `period-${key}`,
        "aria-label": label,
        oninput: () => {
          const value = Number(input.value);
          chosen[key] = key === "from" ? Math.min(value, chosen.to) : Math.max(value, chosen.from);
          input.value = String(chosen[key]);
          tell(data);
          changed();
        },
      });
      input.value = String(chosen[key]);
      return input;
    };
    return [
      dom.el(
        "fieldset", { class: "period" },
        dom.el("legend", { text: "Period" }),
        dom.el("div", { class: "range" },
          dom.el("div", { class: "band" }),
          slider("from", "First period"), slider("to", "Last period")),
        dom.el("output", { id: "period-text" }),
      ),
    ];
  }

  function tell(data) {
    const text = dom.at("period-text");
    if (!text) return;
    const { start, end, length, window } = data.periods;
    const step = length || window;
    const from = start[chosen.from];
    const to = end[chosen.to];
    const shown = (ms) => format.moment(ms, step, data.zone);
    // The end of a period of days is the day before the next begins.
    text.textContent = `${shown(from)} – ${shown(step >= 82800000 ? to - 1 : to)}`;
    for (const [key, ms] of [["from", from], ["to", to]]) {
      dom.at(`period-${key}`).setAttribute("aria-valuetext", shown(ms));
    }
    const last = start.length - 1;
    // Where both are at one end, that is on top which can still move.
    dom.at("period-from").style.zIndex = chosen.from > last / 2 ? "2" : "1";
    dom.at("period-to").style.zIndex = chosen.from > last / 2 ? "1" : "2";
    const band = document.querySelector(".range .band");
    band.style.left = `${(100 * chosen.from) / last}%`;
    band.style.right = `${100 - (100 * chosen.to) / last}%`;
  }

  function reset() {
    Object.assign(chosen, { group: null, version: null, from: 0, to: count - 1 });
    draw(model.data);
    changed();
  }

  const isAll = () =>
    chosen.group === null && chosen.version === null && chosen.from === 0 && chosen.to === count - 1;

  return { start, refit, chosen, isAll };
})();
