// Texts of the page whose contrast is below WCAG's AA, 4.5 to 1.
() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (...colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const each of colours) { pen.fillStyle = each; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
    const v = c[i] / 255;
    return sum + part * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const under = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
    return layers;
  };
  const bad = [];
  const check = (element, ink, paper) => {
    const [a, b] = [light(rgb(...paper, ink)), light(rgb(...paper))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  };
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility || !e.checkVisibility() || e.closest(".skip, script, style")) continue;
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own) continue;
    if (e.closest("svg")) {
      const box = e.closest(".node") && e.closest(".node").querySelector("rect");
      const paper = [...under(e.closest("svg").parentElement), ...(box ? [getComputedStyle(box).fill] : [])];
      check(e, getComputedStyle(e).fill, paper);
    } else check(e, getComputedStyle(e).color, under(e));
  }
  return bad;
}
