// Reads Prometheus text and what two readings of it say of the time between them. Pure functions.

// Values by name; histograms as { bounds, counts } with cumulative counts.
export function parseMetrics(text) {
  const values = new Map();
  const histograms = new Map();
  for (const line of text.split("\n")) {
    const found = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const [, name, labels = "", number] = found;
    const value = Number(number);
    if (!name.endsWith("_bucket")) {
      values.set(name, (values.get(name) ?? 0) + value);
      continue;
    }
    const bound = /(?:^|,)le="([^"]+)"/.exec(labels)?.[1];
    if (bound === undefined || labels.includes("handler=")) continue;
    const whole = name.slice(0, -"_bucket".length);
    if (!histograms.has(whole)) histograms.set(whole, { bounds: [], counts: [] });
    histograms.get(whole).bounds.push(bound === "+Inf" ? Infinity : Number(bound));
    histograms.get(whole).counts.push(value);
  }
  return { values, histograms };
}

// The quantile of what came between two readings, by straight lines within a bucket; null: nothing came.
export function quantile(before, after, share) {
  if (!after) return null;
  const counts = after.counts.map((count, i) => count - (before?.counts[i] ?? 0));
  const total = counts.at(-1);
  if (!(total > 0)) return null;
  const wanted = share * total;
  const at = counts.findIndex((count) => count >= wanted);
  const low = at === 0 ? 0 : after.bounds[at - 1];
  const high = after.bounds[at];
  if (high === Infinity) return low;
  const below = at === 0 ? 0 : counts[at - 1];
  return low + (high - low) * (wanted - below) / (counts[at] - below);
}
