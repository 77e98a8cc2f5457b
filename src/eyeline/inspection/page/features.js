// The picture as given and as seen, and the maps.

function buildPicture(view, data, seen, given) {
  const pair = el("div", { className: "pair-of-scenes" });
  view.append(pair);
  const [high, wide] = data.original;
  new Scene(pair, "The picture as it was given", (context) => {
    context.drawImage(given, 0, 0, wide, high);
  }, { view: [0, 0, wide, high], caption: `as given, ${wide} × ${high}` });
  const [paddedHigh, paddedWide] = data.padded;
  const [x1, y1, x2, y2] = data.inside;
  const bare = paddedWide === x2 - x1 && paddedHigh === y2 - y1;
  const scene = new Scene(pair, "The picture as the network sees it", (context, unit) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(seen, 0, 0, paddedWide, paddedHigh);
    if (!bare) drawBox(context, unit, data.inside, COLOURS.chosen, { dash: [5, 4] });
  }, { view: [0, 0, paddedWide, paddedHigh] });
  scene.caption.textContent = `as seen, ${paddedWide} × ${paddedHigh}; lowest value black, highest `
    + `white. ${bare ? "Nothing had to be padded."
      : `Beyond the dashed line it is padded with ${data.padding}.`}`;
}

function buildFeatures(view, maps, pictures) {
  let chosen = Math.min(maps.length - 1, 4);
  radios(view, "Map", maps.map((map, i) => [i, map.name]), chosen, (i) => { chosen = i; show(); });
  const shown = el("div", { className: "maps" });
  view.append(shown);
  function show() {
    const map = maps[chosen];
    const [channels, high, wide] = map.shape;
    const said = map.explained.map((part) => percent(part)).join(", ");
    const caption = `${map.name} of ${map.group}: ${wide} × ${high} cells, ${channels} channels. `
      + `Red, green and blue explain ${said} of what differs.`;
    const whole = picture(map.components, `${map.name}, principal components`, caption, "whole");
    const small = map.channels.map((channel) => picture(channel.map,
      `${map.name}, channel ${channel.channel}`,
      `channel ${channel.channel}, ${percent(channel.energy)}`, ""));
    replace(shown, whole, el("div", { className: "channels" }, ...small));
  }
  function picture(source, alt, caption, className) {
    return el("figure", { className }, el("img", { src: source, alt, className: "cells" }),
      el("figcaption", { textContent: caption }));
  }
  show();
}
