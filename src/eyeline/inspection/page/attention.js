// Which cells a score hangs on.

function buildAttention(view, maps) {
  const unique = (key) => [...new Set(maps.map((map) => map[key]))];
  const wanted = { title: maps[0].title, method: maps[0].method, layer: maps[0].layer };
  let cover = 0.65;
  const [high, wide] = DATA.picture.padded;
  const pictures = maps.map((map) => heatMap(Float32Array.from(unpack(map.values), (v) => v / 255),
    map.width, map.height, true));
  const [left, right] = columns(view);
  const scene = new Scene(left, "The picture with the cells that a score hangs on", (context, unit) => {
    const map = chosen();
    drawPhoto(context);
    context.globalAlpha = cover;
    context.drawImage(pictures[maps.indexOf(map)], 0, 0, wide, high);
    context.globalAlpha = 1;
    const one = DATA.boxes.detections[map.detection];
    if (one) {
      drawBox(context, unit, one.box, COLOURS.found);
      drawTag(context, unit, one.box, `${one.label} ${share(one.score)}`, COLOURS.found);
    }
    scene.caption.textContent = `${map.title}: ${map.method} at ${map.layer}, ${map.width} × `
      + `${map.height} cells, the lighter the more. ${map.note}`;
  });
  slider(left, "Cover", 0, 100, 100 * cover, (v) => `${v.toFixed(0)} %`, (v) => {
    cover = v / 100;
    scene.redraw();
  });
  const choose = (key) => (value) => {
    wanted[key] = value;
    const map = chosen();
    scene.redraw();
    if (key === "title" && map.detection !== null) set("detection", map.detection);
  };
  const titles = radios(right, "What for", unique("title").map((title) => [title, title]),
    wanted.title, choose("title"), true);
  for (const [key, name] of [["method", "Method"], ["layer", "Layer"]]) {
    radios(right, name, unique(key).map((value) => [value, value]), wanted[key], choose(key));
  }
  on("detection", (detection) => {
    const map = maps.find((one) => one.detection === detection);
    if (!map || chosen().detection === detection) return; // its mask may be what is chosen
    titles.select(map.title);
    choose("title")(map.title);
  });

  function chosen() {
    return maps.find((map) => Object.keys(wanted).every((key) => map[key] === wanted[key]));
  }
}
