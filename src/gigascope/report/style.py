"""The look of a report page: one narrow column on a phone, pictures beside numbers on a wide screen, light and dark."""

from __future__ import annotations

CSS = """\
:root {
  color-scheme: light dark;
  --ground: #fcfcfb; --raised: #f3f4f3; --ink: #1b1f24; --soft: #58616c; --line: #dcdfe2; --accent: #175a9c;
  --warn: #8a4b00; --warn-ground: #fdf3e3; --fine: #2b6b45;
  --c1: #175a9c; --c2: #b9500b; --c3: #2b7a4b; --c4: #7b4aa5; --c0: #7d8791;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #131619; --raised: #1c2125; --ink: #e6e9ec; --soft: #a3adb8; --line: #333a41; --accent: #7ab8f5;
    --warn: #f5bd6b; --warn-ground: #2b2317; --fine: #86cfa3;
    --c1: #7ab8f5; --c2: #f3a261; --c3: #7fcb9b; --c4: #c8a4ec; --c0: #8d98a4;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
header, main, footer { max-width: 82rem; margin: 0 auto; padding: 0 clamp(1rem, 3vw, 2.5rem); }
header { padding-top: clamp(1.5rem, 4vw, 3rem); }
.kind { margin: 0; color: var(--soft); font-size: .875rem; letter-spacing: .02em; }
h1 { margin: .1rem 0 .5rem; font-size: clamp(1.75rem, 4vw, 2.5rem); line-height: 1.15; font-weight: 650;
  letter-spacing: -.015em; overflow-wrap: anywhere; }
.summary { margin: 0 0 1.25rem; max-width: 48rem; font-size: 1.0625rem; }
nav { display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; padding: .65rem 0; border-block: 1px solid var(--line);
  font-size: .875rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
section { padding: 1.75rem 0 .75rem; scroll-margin-top: .5rem; }
section + section { border-top: 1px solid var(--line); }
h2 { margin: 0 0 1rem; font-size: 1.375rem; line-height: 1.25; font-weight: 620; letter-spacing: -.01em; }
h3 { margin: 1.75rem 0 .6rem; font-size: 1rem; font-weight: 620; }
p { margin: 0 0 1rem; max-width: 48rem; }
.lead { color: var(--soft); }
figure { margin: 0 0 1.25rem; min-width: 0; }
figcaption { margin-top: .55rem; color: var(--soft); font-size: .875rem; line-height: 1.45; max-width: 48rem; }
.grid { display: grid; gap: 1rem 2rem; align-items: start; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .75rem 1rem; }
.four { grid-template-columns: repeat(auto-fit, minmax(min(46%, 12rem), 1fr)); gap: .75rem 1rem; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(47%, 10.5rem), 1fr)); gap: .5rem; }
.pair { display: grid; gap: 3px; }
.first { display: grid; gap: 1.25rem 2.5rem; align-items: start; }
@media (min-width: 64rem) { .first { grid-template-columns: minmax(0, 1.9fr) minmax(17rem, 1fr); } }

.tiles { margin: 0 0 1rem; display: grid; gap: 1px; border: 1px solid var(--line);
  border-radius: 6px;
  overflow: hidden; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.tiles > div { box-shadow: 0 0 0 1px var(--line); padding: .7rem .9rem .75rem; }
.tiles dt { color: var(--soft); font-size: .8125rem; line-height: 1.35; }
.tiles dd { margin: 0; }
.tiles .figure { margin: .1rem 0; font-size: 1.0625rem; display: flex; flex-wrap: wrap; gap: 0 .3em;
  align-items: baseline; }
.tiles .value { font-size: 1.5rem; font-weight: 620; letter-spacing: -.01em; }
.tiles .unit { color: var(--soft); }
.note { color: var(--soft); font-size: .8125rem; line-height: 1.4; }
.facts { margin: 0; }
.facts > div { display: grid; gap: .1rem 1.5rem; padding: .65rem 0; border-top: 1px solid var(--line); }
.facts > div:first-child { border-top: 0; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; max-width: 48rem; }
.facts .note { font-size: .9375rem; }
@media (min-width: 48rem) { .facts > div { grid-template-columns: 13rem minmax(8rem, 15rem) 1fr; } }
.chosen { font-weight: 560; overflow-wrap: anywhere; }
.warnings { margin: 0 0 1rem; padding: 0; list-style: none; max-width: 60rem; }
.warnings li { margin: 0 0 .5rem; padding: .6rem .9rem; background: var(--warn-ground);
  border-left: 3px solid var(--warn);
  border-radius: 0 4px 4px 0; overflow-wrap: anywhere; }
.fine { color: var(--fine); }

.scroll { overflow-x: auto; margin: 0 0 1.25rem; }
table { border-collapse: collapse; font-size: .875rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; caption-side: top; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 560; color: var(--soft); vertical-align: bottom; max-width: 11rem; }
td { white-space: nowrap; }
td.wrap { white-space: normal; min-width: 12rem; }
td.n, th.n { text-align: right; padding-right: 1.4rem; }
sub { font-size: .72em; line-height: 0; }
details { margin: 0 0 .75rem; }
summary { cursor: pointer; color: var(--accent); padding: .3rem 0; }
pre { margin: 0 0 1.25rem; padding: .8rem 1rem; background: var(--raised); border-radius: 6px; overflow-x: auto;
  font-size: .8125rem; line-height: 1.55; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }

.picture { position: relative; display: block; background: #000; overflow: hidden; border-radius: 2px; }
.picture img { display: block; width: 100%; height: 100%; }
.picture .coarse { image-rendering: pixelated; }
.picture .name, .picture .bar, .picture .corner { position: absolute; color: #fff; font-size: .75rem; line-height: 1.2;
  pointer-events: none; white-space: nowrap; text-shadow: 0 0 3px #000, 0 0 2px #000; }
.picture .name, .picture .corner { padding: .12rem .35rem; background: rgba(0, 0, 0, .55); border-radius: 2px; }
.picture .name { left: .3rem; top: .3rem; }
.picture .corner { right: .3rem; top: .3rem; }
.picture .corner.low { top: auto; bottom: .3rem; }
.picture .bar { left: .5rem; bottom: .5rem; }
.picture .bar span { padding: .08rem .3rem; background: rgba(0, 0, 0, .55); border-radius: 2px; }
.picture .bar::after { content: ""; display: block; height: 4px; width: 100%; margin-top: 3px; background: #fff;
  box-shadow: 0 0 0 1px rgba(0, 0, 0, .55); }
.ramp { display: flex; align-items: center; gap: .5rem; margin: .35rem 0 0; color: var(--soft); font-size: .8125rem;
  white-space: nowrap; }
.ramp span:nth-child(2) { flex: 1; height: .7rem; border-radius: 2px; }
.slices { display: grid; gap: 3px; }
.slices .thin .name { font-size: .6875rem; }

.plot { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { fill: var(--soft); font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
@media (min-width: 40rem) { .plot text { font-size: 10.5px; } }
.plot .frame { fill: none; stroke: var(--line); }
.plot .rule { stroke: var(--line); stroke-width: .8; }
.plot .mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.plot .line { fill: none; stroke-width: 1.7; stroke-linejoin: round; }
.plot .wide { stroke-width: 6; opacity: .35; stroke-linecap: round; }
.plot .dashed { stroke-dasharray: 5 3.5; }
.plot .band { opacity: .2; stroke: none; }
.plot .point { stroke: var(--ground); stroke-width: .7; }
.plot .hollow { fill: var(--ground); stroke-width: 1.5; }
.k0 { --k: var(--c0); } .k1 { --k: var(--c1); } .k2 { --k: var(--c2); } .k3 { --k: var(--c3); } .k4 { --k: var(--c4); }
.plot .line { stroke: var(--k); } .plot .band, .plot .point { fill: var(--k); } .plot .hollow { stroke: var(--k); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0 0 .2rem; padding: 0; list-style: none;
  font-size: .8125rem; color: var(--soft); }
.legend li::before { content: ""; display: inline-block; width: 1.1rem; height: 0; margin-right: .4rem;
  vertical-align: .25em;
  border-top: 2.5px solid var(--k); }
.legend .wide::before { border-top-width: 6px; opacity: .45; vertical-align: .1em; }
.legend .dashed::before { border-top-style: dashed; }
.legend .dashdots::before { border-top-style: dashed; }
.legend .large::before { width: .75rem; height: .75rem; border: 0; border-radius: 50%; background: var(--k);
  vertical-align: -.05em; }
.legend .dots::before { width: .5rem; height: .5rem; border: 0; border-radius: 50%; background: var(--k);
  vertical-align: .02em; }
.legend .hollow::before { width: .5rem; height: .5rem; border: 1.5px solid var(--k); background: none;
  border-radius: 50%;
  vertical-align: .02em; }
.bars { margin: .4rem 0 1.25rem; font-size: .875rem; }
.bars > div { display: grid; grid-template-columns: minmax(6rem, 9rem) 1fr; gap: 0 .9rem; padding: .2rem 0; }
.bars dt { color: var(--soft); }
.bars dd { margin: 0; display: flex; flex-wrap: wrap; align-items: center; gap: 0 .6rem; min-width: 0; }
.bars .bar-fill { display: block; height: .85rem; min-width: 2px; background: var(--c1);
  border-radius: 0 2px 2px 0; flex: none; }
.plot-title { margin: 0 0 .15rem; font-weight: 560; font-size: .9375rem; }
footer { padding-block: 1.5rem 3rem; }
footer p { padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .8125rem;
  max-width: none; }
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
