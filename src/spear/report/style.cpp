#include "spear/report/style.h"

namespace spear {

std::string_view report_style() {
  return R"css(
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1b1d21; --soft: #5b616b; --rule: #dcdee2; --grid: #e9eaed;
  --blue: #1f66c1; --orange: #b3500f; --row: #eef3fb;
  --heat-0: #eef2f8; --heat-1: #d6e3f3; --heat-2: #b9d0ea; --heat-3: #97b9df; --heat-4: #739fd1;
  --heat-5: #4f84c0; --heat-6: #3469a8; --heat-7: #214f88; --heat-8: #123462;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1d2024; --ink: #e8e9eb; --soft: #a3a9b3; --rule: #3a3e45; --grid: #2b2f35;
    --blue: #6aa9f7; --orange: #f0975a; --row: #20293a;
    --heat-0: #23272e; --heat-1: #24354c; --heat-2: #26456b; --heat-3: #2c578b; --heat-4: #376cab;
    --heat-5: #4a85c9; --heat-6: #6aa2e2; --heat-7: #97c1f1; --heat-8: #cfe3fb;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
p { margin: .25rem 0 .75rem; max-width: 72ch; }
.soft, figcaption { color: var(--soft); font-size: .875rem; }
.quick { border-left: 4px solid var(--orange); padding: .5rem .75rem; background: var(--card); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 16px;
  align-items: start; }
figure, .card { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 14px; min-width: 0; }
figure h3, .card h3 { font-size: 1rem; margin: 0 0 .5rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .tick, svg .axis-title { fill: var(--soft); }
svg .label { font-weight: 600; }
svg .peer-label { fill: var(--orange); font-weight: 400; }
svg .grid { stroke: var(--grid); }
svg .axis { stroke: var(--soft); }
svg .leader { stroke: var(--soft); stroke-width: .75; }
svg .front { fill: none; stroke: var(--blue); stroke-width: 1.5; opacity: .55; }
svg .model { fill: var(--blue); stroke: var(--card); stroke-width: 1.5; }
svg .peer { fill: var(--card); stroke: var(--orange); stroke-width: 2; }
svg .bar { fill: var(--blue); }
svg .curve-loss, svg .curve-held { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .curve-loss { stroke: var(--blue); }
svg .curve-held { stroke: var(--orange); stroke-dasharray: 6 3; }
svg .curve-dot { fill: var(--orange); }
svg .heat-0 { fill: var(--heat-0); } svg .heat-1 { fill: var(--heat-1); } svg .heat-2 { fill: var(--heat-2); }
svg .heat-3 { fill: var(--heat-3); } svg .heat-4 { fill: var(--heat-4); } svg .heat-5 { fill: var(--heat-5); }
svg .heat-6 { fill: var(--heat-6); } svg .heat-7 { fill: var(--heat-7); } svg .heat-8 { fill: var(--heat-8); }
.key { display: inline-block; width: .7em; height: .7em; border-radius: 50%; background: var(--blue); }
.key.peer { border-radius: 0; background: none; border: 2px solid var(--orange); transform: rotate(45deg) scale(.8); }
.scroll { overflow-x: auto; margin: 0 0 16px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums;
  background: var(--card); }
.caption { font-weight: 600; font-size: .875rem; margin: .75rem 0 .5rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
thead th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
tr.reference { background: var(--row); }
details { margin-top: .5rem; }
summary { cursor: pointer; color: var(--soft); font-size: .875rem; }
blockquote { margin: .25rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9375rem; }
.prompt { white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .75rem; }
@media print { body { background: none; } .scroll { overflow: visible; } details > * { display: block; } }
)css";
}

}  // namespace spear
