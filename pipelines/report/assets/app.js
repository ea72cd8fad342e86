// Puts the page together, and again when a filter changes or newer data comes.
const app = (() => {
  const POLL_MS = 2000;
  const SLOWEST_MS = 30000;
  let waiting = 0;

  function figures(filter) {
    const { data } = model;
    const sums = model.totals(filter);
    const found = model.cycles(filter);
    const dead = data.dead.reduce((all, one) => all + one.count, 0);
    const known = data.has.flow;
    const complete = found.count || sums.completed;
    const open = known ? openAtEnd(filter, sums) : null;
    const list = [
      ["Cases started", known ? format.short(sums.started) : format.short(data.cases.count)],
      ["Completed", known ? format.short(sums.completed) : format.short(found.count), complete ? again(found, sums) : model.ended || model.nothing ? null : "no end state is known"],
      ["Open at the end", open === null ? "–" : format.short(open)],
      ["Transitions", format.short(sums.transitions)],
      ["Median cycle time", format.duration(found.p50 ?? sums.p50)],
      ["Nine of ten within", format.duration(found.p90 ?? sums.p90)],
      ["Late · dead", `${format.short(sums.late)} · ${format.short(dead)}`],
    ];
    dom.put("figures", ...list.map(([label, value, note]) => dom.el("div", {},
      dom.el("dt", { text: label }), dom.el("dd", { text: value }), note && dom.el("dd", { class: "why", text: note }))));
  }

  // More often than there are cases that are complete: the flow says why.
  function again(found, sums) {
    if (!model.data.has.flow || !found.count || sums.completed <= found.count) return null;
    return `of ${format.counted(found.count, "case")}`;
  }

  // One window over all time has no end at which cases could be open: the table of cases tells, if it is there.
  function openAtEnd(filter, sums) {
    if (model.data.periods.start.length) return sums.active;
    const { steps, fromCases } = model.flow(filter);
    return fromCases && steps.length ? steps[steps.length - 1].active : null;
  }

  function heading() {
    const { data } = model;
    document.title = data.title;
    dom.at("overline").textContent = data.live ? "Process report, live" : "Process report";
    dom.at("title").textContent = data.title;
    const { start, end, window, length, overlap } = data.periods;
    const parts = [];
    if (start.length) {
      const last = end[end.length - 1];
      parts.push(`${format.moment(start[0], window, data.zone)} – ${format.moment(window >= 82800000 ? last - 1 : last, window, data.zone)}`);
      parts.push(`windows of ${format.length(window)}`);
    } else if (!model.nothing) parts.push("one window over all time");
    parts.push(`times of ${data.zone}`);
    if (data.source) parts.push(data.source);
    parts.push(`made ${format.time(data.made, data.zone)}`);
    dom.put("facts", ...parts.map((text) => dom.el("span", { text })));
    const cut = [...data.cut];
    if (model.nothing) cut.unshift(data.live ? "nothing has been measured yet" : "nothing was measured: the tables have no rows");
    if (length) cut.push(`windows are put together to periods of ${format.length(length)}, as there are more than a page can show`);
    if (overlap) cut.push("sliding windows overlap, and only such are taken that follow one another: an event counts once");
    dom.at("cut").hidden = !cut.length;
    dom.at("cut").textContent = cut.map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`).join(" ");
    dom.put("foot", dom.el("p", { text: `Made by Imixs Data Streaming. Counts and sums are exact; quantiles of cycle times are at most ${100 * model.error()} % off.` }));
  }

  function live(found) {
    const { zone } = model.data;
    const box = dom.at("live");
    box.hidden = !found;
    if (!found) return;
    const lag = found.known_until === null ? "nothing known yet"
      : `${format.duration(Math.max(0, (found.now - found.known_until) / 1000))} behind`;
    const dead = model.data.dead.reduce((all, one) => all + one.count, 0);
    const facts = [
      ["transitions a second", found.rate === null ? "–" : format.short(Math.round(found.rate * 10) / 10)],
      [found.known_until === null ? "watermark" : `known until ${format.time(found.known_until, zone)}`, lag],
      ["dead letters", format.count(dead)],
    ];
    dom.put(box, dom.el("span", { class: "dot", "aria-hidden": "true" }),
      ...facts.map(([label, value]) => dom.el("span", {}, dom.el("b", { text: value }), dom.el("span", { text: label }))),
      found.problem && dom.el("span", { class: "problem", text: found.problem }));
  }

  function draw() {
    const filter = filters.chosen;
    const again = focused();
    dom.untip();
    figures(filter);
    processMap.draw(filter);
    lists.bottlenecks(filter);
    charts.cycle(filter);
    charts.flow(filter);
    people.draw(filter);
    lists.variants(filter);
    lists.quality(filter);
    again();
  }
  // What had the focus is drawn anew: the mark of the same name gets it back.
  function focused() {
    const held = document.activeElement;
    const box = held && held.closest("[id]");
    const name = held && held.dataset.name;
    return () => {
      if (!name || !box || held.isConnected) return;
      const same = [...box.querySelectorAll("[data-name]")].find((mark) => mark.dataset.name === name);
      if (same) same.focus({ preventScroll: true });
    };
  }
  // Sliders fire faster than a page can be drawn.
  function soon() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  }

  function show(text) {
    const data = model.load(text);
    filters.refit(data);
    heading();
    live(data.live);
    draw();
  }

  // Asks for what is newer, less often while the server is away.
  async function follow() {
    let pause = POLL_MS;
    let tag = model.data.tag || "";
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (document.hidden) continue;
      try {
        const answer = await fetch("data", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
        if (answer.status === 200) {
          tag = answer.headers.get("ETag") || "";
          show(await answer.text());
        } else if (answer.status !== 304) throw new Error(`the server answers ${answer.status}`);
        live(JSON.parse(answer.headers.get("X-Stream")));
        dom.at("live").classList.remove("away");
        pause = POLL_MS;
      } catch (error) {
        dom.at("live").classList.add("away");
        pause = Math.min(SLOWEST_MS, 2 * pause);
      }
    }
  }

  filters.start(soon);
  show(dom.at("data").textContent);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    soon();
    processMap.resize();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") dom.untip();
  });
  if (model.data.live) follow();
})();
