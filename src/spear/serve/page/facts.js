// What the server says of its model: facts, and the certificate that came with the file.
import { $, element, rounded } from "./dom.js";

const kNames = {
  format: "Format", architecture: "Architecture", n_vocab: "Vocabulary", n_ctx_train: "Trained context", n_embd: "Width",
  n_layer: "Layers", size: "Size", compensators: "Compensators",
};

function bytes(value) {
  return value >= 1e9 ? `${rounded(value / 1e9)} GB` : `${rounded(value / 1e6)} MB`;
}

function shown(name, value) {
  if (name === "size") return bytes(value);
  return typeof value === "number" ? value.toLocaleString("en") : String(value);
}

export function showFacts(card) {
  const list = $("facts");
  list.replaceChildren();
  const put = (name, value) => list.append(element("dt", "", name), element("dd", "", value));
  put("Name", card.id);
  put("Context served", `${card.max_model_len.toLocaleString("en")} tokens`);
  for (const [name, value] of Object.entries(card.meta ?? {})) put(kNames[name] ?? name, shown(name, value));
  showCertificate(card.certificate);
}

const kPercent = (share) => `${(100 * share).toFixed(1)} %`;

// Lines of the table: a name, and for a column's entry its value and how sure it is.
function textRows(name) {
  const of = (column) => column.texts?.[name];
  return [
    [`Perplexity, ${name}`, (c) => of(c) && [rounded(of(c).perplexity, 4), `± ${rounded(of(c).perplexity_stderr ?? 0, 2)}`]],
    [`Divergence from full precision, ${name}`, (c) => of(c)?.kl_mean !== undefined && [
      `${rounded(of(c).kl_mean)} nats`,
      of(c).kl_mean_95 ? `95 %: ${of(c).kl_mean_95.map((v) => rounded(v)).join(" to ")}` : ""]],
    [`Same likeliest token, ${name}`, (c) => of(c)?.top1_agreement !== undefined && [kPercent(of(c).top1_agreement),
      of(c).top1_agreement_stderr ? `± ${kPercent(of(c).top1_agreement_stderr)}` : ""]],
  ];
}

function taskRows(name) {
  const of = (column) => column.tasks?.[name];
  return [[`Accuracy, ${name}`, (c) => of(c) && [kPercent(of(c).accuracy), `± ${kPercent(of(c).stderr)}, ${of(c).n} questions` +
    (of(c).answers_changed === undefined ? "" : `, ${kPercent(of(c).answers_changed)} answered otherwise`)]]];
}

function keysOf(columns, part) {
  return [...new Set(columns.flatMap((column) => Object.keys(column[part] ?? {})))];
}

function showCertificate(certificate) {
  const table = $("certificate");
  table.replaceChildren();
  if (!certificate?.reference) {
    $("certificate-about").textContent = "This file carries no certificate: its quality was not measured when it was made.";
    return;
  }
  $("certificate-about").textContent = "Measured when the file was made, against the model in full precision" +
    (certificate.quick ? ", on small samples (a quick certificate)." : ".");
  const columns = [certificate.reference, ...(certificate.models ?? [])];
  // A path says nothing to a reader elsewhere; the file's name does.
  const title = (column, i) => (i === 0 ? "Full precision" : String(column.path ?? "").split("/").at(-1) || "This file");
  const head = element("tr");
  head.append(element("td"), ...columns.map((column, i) => {
    const cell = element("th", "", title(column, i));
    cell.scope = "col";
    return cell;
  }));
  const rows = [
    ["Size", (c) => c.bytes && [bytes(c.bytes.total), `${rounded(c.bits_per_weight)} bits a weight`]],
    ...keysOf(columns, "texts").flatMap(textRows),
    ...keysOf(columns, "tasks").flatMap(taskRows),
  ];
  const part = element("tbody");
  part.append(...rows.map(([name, read]) => certificateRow(name, columns.map(read))));
  const top = element("thead");
  top.append(head);
  table.append(element("caption", "unseen", "Quality certificate"), top, part);
}

function certificateRow(name, cells) {
  const row = element("tr");
  const head = element("th", "", name);
  head.scope = "row";
  row.append(head, ...cells.map((cell) => {
    const made = element("td", "", cell ? cell[0] : "–");
    if (cell && cell[1]) made.append(element("small", "", cell[1]));
    return made;
  }));
  return row;
}
