// Work by person, and by weekday and hour.
const people = (() => {
  const MOST = 15;
  const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
  const ALL_VERSIONS = "Versions are not told apart here: the table has none.";

  function draw(filter) {
    const { has, zone } = model.data;
    const found = model.people(filter);
    const all = found.reduce((sum, one) => sum + one.transitions, 0);
    const say = dom.at("people-say");
    if (!found.length) {
      say.textContent = has.workload
        ? "Nobody did anything in what is chosen."
        : "There is no table workload in this folder.";
      dom.put("people");
      dom.put("heat");
      dom.at("heat-title").hidden = true;
      dom.at("heat-note").textContent = "";
      return;
    }
    dom.at("heat-title").hidden = false;
    const taken = found.reduce((sum, one) => sum + one.handovers, 0);
    const first = found.find((one) => model.named("actors", one.actor));
    const unknown = found.filter((one) => model.data.actors.names[one.actor] === null)
      .reduce((sum, one) => sum + one.transitions, 0);
    const parts = first
      ? [`${format.name(model.actor(first.actor))} did most, ${format.share(first.transitions, all)} of ${format.counted(all, "transition")}.`,
        `${format.share(taken, all)} of the work was taken over from somebody else.`]
      : [];
    if (unknown) parts.push(`Of ${format.share(unknown, all)} it is not known who did it.`);
    if (filter.version !== null) parts.push(ALL_VERSIONS);
    say.textContent = parts.join(" ");
    bars(found);
    heat(model.heat(filter), zone);
  }

  function bars(found) {
    const most = found[0].transitions || 1;
    const rows = found.slice(0, MOST).map((one) => {
      const name = model.actor(one.actor);
      const row = dom.el("li", { class: "bar-row" },
        dom.el("span", { class: "bar-name", text: name }),
        dom.el("span", { class: "bar-line" }, dom.el("i", { vars: { "--w": `${(100 * one.transitions) / most}%` } })),
        dom.el("span", { class: "bar-value", text: format.count(one.transitions) }));
      const alone = one.rows === 1 ? "" : "at most ";
      return dom.mark(row, [
        name, ["transitions", format.count(one.transitions)], ["cases", alone + format.count(one.cases)],
        ["taken over", format.count(one.handovers)], ["mean wait before", format.duration(one.mean)],
      ]);
    });
    const list = dom.el("ol", { class: "bars", "aria-label": "Transitions by person" }, ...rows);
    const details = dom.el("details", { id: "people-table" }, dom.el("summary", { text: found.length > MOST ? `All ${found.length} as a table` : "As a table" }));
    dom.put("people", list, details);
    dom.rove(list, rows);
    dom.under("people-table", () => dom.table("Work by person", ["Who", "Transitions", "Taken over", "Mean wait before"],
      found.map((one) => [model.actor(one.actor), format.count(one.transitions), format.count(one.handovers), format.duration(one.mean)])));
  }

  function heat({ unit, cells }, zone) {
    const note = dom.at("heat-note");
    dom.at("heat-title").textContent = unit === "day" ? "By weekday" : "By weekday and hour";
    if (!unit) {
      dom.put("heat");
      note.textContent = "Windows here are longer than a day, so nobody can say on which weekday or at which hour the work was done: measure with --window fixed:1h.";
      return;
    }
    const hours = unit === "hour" ? 24 : 1;
    const most = Math.max(1, ...cells);
    const marks = [];
    const rows = DAYS.map((day, number) => {
      const own = Array.from({ length: hours }, (_, hour) => {
        const count = cells[number * 24 + hour];
        const when = unit === "hour" ? `${day}, ${String(hour).padStart(2, "0")}:00` : day;
        const cell = dom.el("span", {
          class: "cell", vars: { "--t": `${Math.round(100 * Math.sqrt(count / most))}%` },
          text: unit === "day" ? format.count(count) : "",
        });
        marks.push(dom.mark(cell, [when, ["transitions", format.count(count)]]));
        return cell;
      });
      return dom.el("div", { class: "heat-row" }, dom.el("span", { class: "heat-day", text: day.slice(0, 3), "aria-hidden": "true" }), ...own);
    });
    const head = unit === "hour" && dom.el("div", { class: "heat-row head", "aria-hidden": "true" }, dom.el("span", { class: "heat-day" }),
      ...Array.from({ length: 24 }, (_, hour) => dom.el("span", { text: hour % 3 ? "" : String(hour) })));
    const grid = dom.el("div", { class: `heat ${unit}`, role: "group", "aria-label": "Transitions by weekday and hour; arrow keys move" }, head, ...rows);
    dom.put("heat", grid);
    dom.rove(grid, marks, hours);
    note.textContent = unit === "day"
      ? `Days of ${zone}; windows here are longer than an hour, so hours are not known.`
      : `Hours of ${zone}.`;
  }

  return { draw, ALL_VERSIONS };
})();
