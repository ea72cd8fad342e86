// What is ranked or listed: bottlenecks, the ways of cases, and what the data is worth.
const lists = (() => {
  const MOST_STATES = 10;
  const MOST_VARIANTS = 10;
  const MOST_CHIPS = 14;
  const view = { all: false };

  function bottlenecks(filter) {
    const found = model.states(filter).filter((one) => one.visits);
    const say = dom.at("bottleneck-say");
    if (!found.length) {
      say.textContent = "No stay in a state ended in what is chosen.";
      dom.put("bottlenecks");
      return;
    }
    const all = found.reduce((sum, one) => sum + one.total, 0);
    const single = found.every((one) => one.p90 !== null);
    const first = found.find((one) => model.named("states", one.state)) || found[0];
    const parts = [`${format.share(first.total, all)} of all time was spent in ${format.name(model.state(first.state))}: ${format.duration(first.mean)} on average, ${format.counted(first.visits, "time")}.`];
    if (!single) parts.push(filter.version === null ? "Quantiles do not add up over windows and processes, so the longest stay stands in their place." : "Of one version only sums are known, not quantiles.");
    say.textContent = parts.join(" ");
    const heads = ["State", "Share of all time", "Time in all", "Stays", "Mean", ...(single ? ["p90", "p99"] : []), "Longest"];
    const rows = found.slice(0, view.all ? 200 : MOST_STATES).map((one) =>
      dom.el("tr", {},
        dom.el("th", { scope: "row", text: model.state(one.state) }),
        dom.el("td", { class: "share" },
          dom.el("span", { class: "bar-line" }, dom.el("i", { class: "hot", vars: { "--w": `${all ? (100 * one.total) / found[0].total : 0}%` } })),
          dom.el("span", { class: "bar-value", text: format.share(one.total, all) })),
        ...[format.duration(one.total), format.count(one.visits), format.duration(one.mean),
          ...(single ? [format.duration(one.p90), format.duration(one.p99)] : []), format.duration(one.max)]
          .map((text) => dom.el("td", { class: "number", text }))));
    dom.put("bottlenecks",
      dom.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "States by the time spent in them" },
        dom.el("table", { class: "ranked" },
          dom.el("thead", {}, dom.el("tr", {}, ...heads.map((text, i) => dom.el("th", { scope: "col", text, class: i > 1 ? "number" : null })))),
          dom.el("tbody", {}, ...rows))),
      found.length > MOST_STATES && dom.el("button", {
        type: "button", class: "more", text: view.all ? "Show fewer" : `Show all ${found.length} states`,
        onclick: () => {
          view.all = !view.all;
          bottlenecks(filter);
        },
      }));
  }

  function variants(filter) {
    const { has, variant_rest: rest } = model.data;
    const found = model.variants(filter);
    const say = dom.at("variant-say");
    const all = found.reduce((sum, one) => sum + one.cases, 0);
    if (!all) {
      say.textContent = has.variants
        ? `No case was completed in what is chosen.${model.ended || model.nothing ? "" : " A way is known when its case has ended: name the end states with --end_states."}`
        : "There is no table variants in this folder.";
      dom.put("variants");
      return;
    }
    const shown = found.filter((one) => one.way).slice(0, MOST_VARIANTS);
    const covered = shown.reduce((sum, one) => sum + one.cases, 0);
    const parts = [`The ${shown.length > 1 ? `${shown.length} most frequent ways are` : "most frequent way is"} those of ${format.share(covered, all)} of ${format.counted(all, "completed case")}.`];
    const others = found.filter((one) => one.way).length - shown.length + rest;
    if (others > 0) parts.push(`There are ${format.count(others)} more.`);
    if (filter.version !== null) parts.push(people.ALL_VERSIONS);
    say.textContent = parts.join(" ");
    dom.put("variants", ...shown.map((one, number) => variant(one, number, all, shown[0].cases)));
  }

  function variant(one, number, all, most) {
    const cut = one.way.length > MOST_CHIPS;
    const codes = cut ? [...one.way.slice(0, MOST_CHIPS - 3), -2, ...one.way.slice(-2)] : one.way;
    const seen = new Set();
    const chips = codes.flatMap((code, i) => {
      const arrow = i ? [dom.el("span", { class: "dots", text: "→", "aria-hidden": "true" })] : [];
      return [...arrow, chip(code)];
    });
    function chip(code) {
      if (code === -1) return dom.el("span", { class: "dots", text: "…" });
      if (code === -2) return dom.el("span", { class: "dots", text: `${one.way.length - MOST_CHIPS + 1} more …` });
      const again = seen.has(code);
      seen.add(code);
      return dom.el("span", { class: again ? "chip again" : "chip", text: model.state(code) });
    }
    return dom.el("li", {},
      dom.el("div", { class: "way-head" },
        dom.el("span", { class: "way-share", text: format.share(one.cases, all) }),
        dom.el("span", { class: "bar-line" }, dom.el("i", { vars: { "--w": `${(100 * one.cases) / most}%` } })),
        dom.el("span", { class: "way-facts", text: `${format.counted(one.cases, "case")}, ${format.duration(one.mean)} on average` })),
      dom.el("div", { class: "chips", role: "group", "aria-label": `Way ${number + 1}` }, ...chips));
  }

  const QUALITY = {
    gaps: ["Gaps", "an event came from a state in which its case was not last seen"],
    ties: ["Ties", "events of one case at one time"],
    reversals: ["Reversals", "an event stood behind a younger one of its case"],
  };

  function quality(filter) {
    const { data } = model;
    const late = model.reasons(data.late, filter);
    const retracted = model.reasons(data.retracted, filter);
    const sum = (rows) => rows.reduce((all, row) => all + row.count, 0);
    const dead = sum(data.dead);
    const sums = model.totals(filter);
    const lateCount = Math.max(sum(late), sums.late);
    const words = [
      dead ? format.counted(dead, "dead letter") : "no dead letters",
      lateCount ? format.counted(lateCount, "late event") : "no late events",
      sum(retracted) ? format.counted(sum(retracted), "retracted transition") : "nothing retracted",
    ];
    const run = data.run;
    const broken = run ? run.laws.filter((law) => !law.holds) : [];
    dom.at("quality-say").textContent = `There are ${words[0]}, ${words[1]} and ${words[2]}.` +
      (run ? (broken.length ? " What went in did not all come out: see below." : run.laws.length ? " What went in came out." : "") : (data.unknown ? " What the run says of itself can't be read." : " The run has not ended, so its sums are not known yet."));

    const left = dom.el("div", {});
    if (run && run.laws.length) {
      left.append(dom.el("h3", { text: "In and out" }), dom.el("ul", { class: "laws" }, ...run.laws.map((law) =>
        dom.el("li", { class: law.holds ? "holds" : "broken" },
          dom.el("span", { class: "mark", text: law.holds ? "✓" : "✗", "aria-label": law.holds ? "holds" : "violated", role: "img" }),
          dom.el("span", { text: law.text })))));
    }
    const facts = run ? Object.entries(run.quality).filter(([, count]) => typeof count === "number") : [];
    if (facts.length) {
      left.append(dom.el("h3", { text: "Quality" }), dom.el("dl", { class: "facts-list" }, ...facts.flatMap(([key, count]) => {
        const [label, meaning] = QUALITY[key] || [key.replace(/_/g, " "), ""];
        return [dom.el("dt", { text: label }), dom.el("dd", {}, dom.el("b", { text: format.count(count) }), dom.el("span", { text: meaning }))];
      })));
    }
    if (run && run.warnings.length) {
      left.append(dom.el("h3", { text: "Warnings" }), dom.el("ul", { class: "plain" }, ...run.warnings.map((text) => dom.el("li", { text }))));
    }
    const right = dom.el("div", {});
    if (data.dead.length) {
      right.append(dom.el("h3", { text: "Dead letters" }), dom.el("ul", { class: "plain dead" }, ...data.dead.slice(0, 12).map((one) =>
        dom.el("li", {},
          dom.el("b", { text: `${format.count(one.count)} × ${one.error}` }),
          one.message && dom.el("span", { text: one.message }),
          one.source && dom.el("small", { text: `first: ${one.source}` })))));
    }
    for (const [title, rows, missing] of [["Late", late, sums.late - sum(late)], ["Retracted", retracted, 0]]) {
      if (!rows.length && missing <= 0) continue;
      right.append(dom.el("h3", { text: title }), dom.el("ul", { class: "plain" },
        ...rows.slice(0, 12).map((row) => dom.el("li", {}, dom.el("b", { text: format.count(row.count) }), dom.el("span", { text: `${format.name(model.group(row.group))}: ${row.reason}` }))),
        missing > 0 && !rows.length && dom.el("li", {}, dom.el("b", { text: format.count(missing) }), dom.el("span", { text: "counted by window (flow.late)" }))));
    }
    dom.put("quality", left.firstChild && left, right.firstChild && right);
  }

  return { bottlenecks, variants, quality };
})();
