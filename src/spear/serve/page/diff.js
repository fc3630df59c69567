// Which tokens of two answers are not common to both: a longest common subsequence. Pure functions.

// Texts of tokens, each of whole characters: one that a token cuts comes with the token that ends it. Bytes that are no
// character are shown as such. Tokens without bytes are taken by their text.
export function wholePieces(tokens) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const pieces = tokens.map(({ token, bytes }) =>
    (bytes ? decoder.decode(Uint8Array.from(bytes), { stream: true }) : token));
  pieces.push(decoder.decode());
  return pieces.filter((piece) => piece !== "");
}

// Two lists of booleans: true where a piece is in the common subsequence.
export function common(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; --i)
    for (let j = b.length - 1; j >= 0; --j)
      longest[i * width + j] = a[i] === b[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
  const inA = new Array(a.length).fill(false), inB = new Array(b.length).fill(false);
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) {
      inA[i++] = inB[j++] = true;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
      ++i;
    } else {
      ++j;
    }
  }
  return [inA, inB];
}

// Where they part for the first time; -1: nowhere.
export function firstDifference(a, b) {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; ++i) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : shorter;
}
