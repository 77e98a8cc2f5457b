// Decode the pictures, build the sections, follow the address.

let photo;

async function main() {
  photo = await loaded(DATA.picture.photo);
  const seen = await loaded(DATA.picture.seen);
  const given = DATA.picture.given ? await loaded(DATA.picture.given) : photo;
  const maps = await Promise.all((DATA.features || []).map((map) => loaded(map.components)));
  const pasted = await Promise.all(
    (DATA.masks?.masks || []).map((mask) => (mask.pasted ? loaded(mask.pasted) : null)),
  );
  const wanted = chosenByAddress();
  if (DATA.boxes.detections.length) state.detection = 0;
  const build = {
    picture: (view, data) => buildPicture(view, data, seen, given),
    features: buildFeatures,
    anchors: buildAnchors,
    cells: buildCells,
    mining: buildMining,
    proposals: buildProposals,
    regions: (view, data) => buildRegions(view, data, maps),
    stages: buildStages,
    masks: (view, data) => buildMasks(view, data, pasted),
    boxes: buildBoxes,
    attention: buildAttention,
  };
  for (const [id, make] of Object.entries(build)) {
    if (DATA[id]) make(document.querySelector(`#${id} .view`), DATA[id]);
  }
  follow(wanted);
  addEventListener("hashchange", () => follow(chosenByAddress()));
  scenes.forEach((scene) => scene.redraw());
  root.dataset.ready = "true";
}

function follow({ section, detection, object, level }) {
  if (detection >= 0 && detection < DATA.boxes.detections.length) {
    set("object", null);
    set("detection", detection);
  }
  if (object >= 0 && object < DATA.boxes.fates.length) set("object", object);
  if (level >= 0 && level < (DATA.anchors?.levels.length || 0)) set("level", level);
  if (section) document.getElementById(section)?.scrollIntoView();
}

main();
