"""The style sheet of the pages: light and dark, any width."""

CSS = """
:root { --paper: #fdfdfb; --ink: #1c2126; --soft: #5b6570; --rule: #e2e4e6; --track: #eceeef;
  --accent: #0a63b8; --other: #b9bfc5; --hit: 10 99 184; --miss: 200 80 10;
  --c0: #0a63b8; --c1: #c8500a; --c2: #16803c; --c3: #8a3fc4; --c4: #b3271e; --c5: #00838a;
  --c6: #94690a; --c7: #c2348b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e9ec; --soft: #9aa5b0; --rule: #2b3138; --track: #262c32;
    --accent: #63b0ff; --other: #59626b; --hit: 99 176 255; --miss: 255 154 85;
    --c0: #63b0ff; --c1: #ff9a55; --c2: #5fd088; --c3: #c79bff; --c4: #ff7d72; --c5: #4fd3d8;
    --c6: #e3bd4e; --c7: #ff8fcb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2.5rem clamp(1rem, 4vw, 3rem) 4rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; margin: 0 0 .4rem;
  letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .8rem; padding-top: 1rem;
  border-top: 1px solid var(--rule); }
p { max-width: 42rem; margin: 0 0 1rem; color: var(--soft); }
dl, dd, figure, ul { margin: 0; padding: 0; }
.head { display: flex; flex-wrap: wrap; gap: 1rem clamp(1.5rem, 5vw, 3.5rem); margin-top: 1.6rem; }
.head div { display: flex; flex-direction: column-reverse; }
.head dt { color: var(--soft); font-size: .9rem; }
.head dd { font-size: clamp(1.9rem, 6vw, 2.8rem); line-height: 1.1; font-weight: 600;
  letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.head div:first-child dd { color: var(--accent); }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th { text-align: left; font-weight: 600; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.halves { display: grid; grid-template-columns: 1fr 1fr; gap: 0 3rem; align-items: start; }
.numbers { margin-bottom: 1.2rem; }
.numbers th, .numbers td { padding: .45rem 0; vertical-align: baseline;
  border-top: 1px solid var(--rule); }
.numbers th { width: 1%; white-space: nowrap; padding-right: 1rem; }
.numbers .num { width: 1%; padding-right: 1rem; }
.numbers small { display: block; color: var(--soft); font-size: .82rem; line-height: 1.35; }
.bar { display: block; height: .45rem; min-width: 4rem; border-radius: .25rem;
  background: var(--track); overflow: hidden; margin: .25rem 0; }
.bar b { display: block; height: 100%; background: var(--accent); }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
.classes th, .classes td { padding: .4rem 0 .4rem 1.2rem; border-top: 1px solid var(--rule); }
.classes th:first-child { padding-left: 0; position: sticky; left: 0; background: var(--paper); }
.classes thead th { color: var(--soft); font-weight: 400; font-size: .85rem; border: 0;
  white-space: nowrap; }
.classes .wide { width: 30%; min-width: 5rem; }
.chart { display: grid; grid-template-columns: minmax(0, 40rem) minmax(11rem, 1fr);
  gap: 1rem 2.5rem; align-items: start; }
.chart svg { width: 100%; height: auto; display: block; }
.chart svg svg { overflow: hidden; }
.mark { stroke: var(--ink); stroke-dasharray: 4 4; fill: none; }
.chart .word { paint-order: stroke; stroke: var(--paper); stroke-width: 5px; }
.chart text { fill: var(--soft); font-size: 13px; }
.chart .mid { text-anchor: middle; }
.chart .end { text-anchor: end; }
.grid { stroke: var(--rule); fill: none; }
.chart.one { grid-template-columns: minmax(0, 46rem); }
.chart .name { fill: var(--ink); font-weight: 600; }
.chart li.line { padding-left: 2.6rem; }
.chart li.line svg { position: absolute; left: 0; top: .75rem; width: 1.9rem; }
.small-keys { gap: 0; }
.small-keys ul { display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
.list { padding-left: 1.2rem; overflow-wrap: anywhere; }
.dot { display: inline-block; width: .65rem; height: .65rem; border-radius: 50%;
  margin-right: .5rem; }
.best { text-decoration: underline; text-underline-offset: .2em; font-weight: 600; }
.doubts { list-style: none; border-left: .25rem solid var(--c1); padding-left: .9rem;
  overflow-wrap: anywhere; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.curve.other { stroke-width: 1; }
.chart circle { stroke: var(--paper); stroke-width: 1.5; }
.chart ul { list-style: none; }
.chart li { padding: .3rem 0 .3rem 1.4rem; position: relative; line-height: 1.35; }
.chart li i { position: absolute; left: 0; top: .72rem; width: .9rem; height: .25rem;
  border-radius: .1rem; }
.chart li span { display: block; color: var(--soft); font-size: .85rem;
  font-variant-numeric: tabular-nums; }
h3 { font-size: 1rem; margin: 1.6rem 0 .8rem; }
.hidden { position: absolute; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
  gap: 1.2rem 2rem; margin-bottom: 1.8rem; }
.small figcaption { margin: 0 0 .2rem; }
.histogram { display: block; width: 100%; max-width: 26rem; height: auto; }
.histogram text { fill: var(--soft); font-size: 12px; }
.histogram .mid { text-anchor: middle; }
.histogram .end { text-anchor: end; }
.histogram .axis { stroke: var(--soft); }
.histogram .good { fill: var(--c0); }
.histogram .bad { stroke: var(--c1); stroke-width: .8; }
.hatch { fill: var(--c1); }
.histogram .threshold { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 3; }
.classes tr.all th, .classes tr.all td { border-top: 2px solid var(--rule); font-weight: 600; }
.matrix { width: auto; }
.matrix th, .matrix td { padding: .45rem .8rem; border: 1px solid var(--rule); }
.matrix thead td { border: 0; }
.matrix thead th { color: var(--soft); font-weight: 400; font-size: .85rem; text-align: center;
  vertical-align: bottom; }
.matrix.upright thead th span { writing-mode: vertical-rl; }
.matrix tbody th { position: sticky; left: 0; background: var(--paper); }
.matrix tbody td { text-align: center; font-variant-numeric: tabular-nums; min-width: 4rem; }
.matrix small { display: block; color: var(--soft); font-size: .75rem; line-height: 1.2; }
.matrix .hit { background: rgb(var(--hit) / var(--share)); font-weight: 600; }
.matrix .miss { background: rgb(var(--miss) / var(--share)); }
.matrix .hit small, .matrix .miss small { color: var(--ink); font-weight: 400; }
.matrix .none { color: var(--other); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; font-size: .9rem; }
.legend li { display: flex; align-items: center; gap: .5rem; }
.legend .ground { fill: #8d949b; }
.shots { display: grid; grid-template-columns: 1fr 1fr; gap: 1.4rem 1.6rem; align-items: start; }
.shots svg { display: block; width: 100%; height: auto; border-radius: .2rem; }
.shots rect, .legend rect { fill: none; }
.under { stroke: rgb(0 0 0 / .6); stroke-width: 4; }
rect.right { stroke: #35e07a; stroke-width: 2; }
rect.false { stroke: #ff7a5c; stroke-width: 2.4; stroke-dasharray: 9 5; }
rect.missed { stroke: #ffe14a; stroke-width: 3; stroke-dasharray: .1 6; stroke-linecap: round; }
rect.ignored { stroke: #e4e8ec; stroke-width: 1.2; stroke-dasharray: 8 3 1.5 3; }
.shots text { font-size: 13px; font-weight: 600; paint-order: stroke; stroke: rgb(0 0 0 / .75);
  stroke-width: 3px; stroke-linejoin: round; }
.shots text.false { fill: #ffb3a0; }
.shots text.missed { fill: #ffe97d; }
.gallery { display: grid; gap: 1.8rem; }
.pair { display: flex; gap: .4rem; }
.pair img { min-width: 0; max-width: calc(50% - .2rem); height: auto; display: block;
  border-radius: .2rem; }
.sides { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4rem; }
.sides img { width: 100%; height: auto; display: block; border-radius: .2rem; }
.sides span { font-size: .8rem; color: var(--soft); }
.swatches { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem;
  font-size: .9rem; margin-bottom: 1.2rem; }
.swatch { display: inline-block; width: .9rem; height: .9rem; border-radius: .15rem;
  margin-right: .5rem; vertical-align: -.1rem; border: 1px solid var(--other); }
.bands td:last-child { width: 35%; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .35rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; margin-right: .3rem; }
.facts div { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: 1rem;
  padding: .35rem 0; border-top: 1px solid var(--rule); }
.facts dt { color: var(--soft); }
.facts dd { overflow-wrap: anywhere; }
@media (max-width: 48rem) {
  body { padding-top: 1.5rem; }
  .halves, .chart, .shots { grid-template-columns: minmax(0, 1fr); }
  .classes th, .classes td { padding-left: .65rem; }
  .classes .wide { display: none; }
  .sides { grid-template-columns: 1fr 1fr; } }
@media (max-width: 30rem) {
  .head { display: grid; grid-template-columns: 1fr 1fr; }
  .chart text { font-size: 20px; }
  .chart .end { font-size: 17px; }
  .histogram text { font-size: 13px; }
  .shots text { font-size: 16px; }
  .matrix th, .matrix td { padding: .4rem .35rem; }
  .matrix tbody td { min-width: 2.9rem; }
  .pair { flex-direction: column; }
  .pair img { max-width: 100%; }
  .facts div { grid-template-columns: 1fr; gap: 0; } }
"""
