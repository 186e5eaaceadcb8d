// A read-only view of one organisation's encryption policy. The token stays in this page's memory.
const at = (id) => document.getElementById(id);
const words = {
  active: ["Active", "good"], suspended: ["Suspended", "bad"], restoring: ["Being restored", "warn"],
  requested: ["Waiting for approval", "warn"], verifying: ["Keys are being verified", "warn"],
  lapsed: ["Restoration window over", "bad"], closed: ["Closed", "bad"], rejected: ["Rejected", "bad"],
};
const health = (word) => (word === "usable" ? "good" : ["unreachable", "throttled", "unknown"].includes(word) ? "warn" : "bad");
const when = (text) => (text ? new Date(text).toLocaleString() : "");

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function table(place, heads, rows) {
  const head = element("tr");
  heads.forEach((text) => head.append(element("th", text)));
  const body = rows.map((cells) => {
    const row = element("tr");
    cells.forEach(([text, kind]) => row.append(element("td", text, kind)));
    return row;
  });
  place.replaceChildren(head, ...body);
}

async function ask(path, token) {
  const answer = await fetch(path, { headers: { authorization: `Bearer ${token}` }, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(`${body.title}: ${body.detail}. ${body.help}`), { status: answer.status });
  return body;
}

// The KMS calls of the last thirty days, over the days. Support may not see them: then there is nothing to show.
async function showUsage(base, token) {
  const uses = new Map();
  let page;
  try {
    for (let cursor = ""; cursor !== null; cursor = page.nextCursor) {
      page = await ask(`${base}/usage?limit=200&cursor=${encodeURIComponent(cursor)}`, token);
      page.items.forEach((item) => {
        const name = [item.region, item.operation, item.purpose ?? "", item.billedTo];
        const sum = uses.get(name.join()) ?? [...name, 0, 0];
        sum[4] += item.calls;
        sum[5] += item.cloudTrailEvents;
        uses.set(name.join(), sum);
      });
    }
  } catch (error) {
    if (error.status !== 403) throw error;
  }
  at("usage").hidden = !page;
  if (!page) return;
  at("cost").textContent = `${page.total} KMS calls from ${page.from} to ${page.to} (UTC), about $${page.costUsd.toFixed(4)}: $${page.billedToVendorUsd.toFixed(4)} billed to the vendor, $${page.billedToCustomerUsd.toFixed(4)} to you. ${page.help}`;
  table(at("uses"), ["Region", "Operation", "Purpose", "Billed to", "Calls", "In your CloudTrail"],
    [...uses.values()].sort().map((sum) => sum.map((cell) => [String(cell)])));
}

async function show() {
  const organisation = at("organisation").value.trim();
  const token = at("token").value.trim();
  const base = `v1/organizations/${encodeURIComponent(organisation)}`;
  const [catalogue, policy, apps, tickets] = await Promise.all([
    ask("v1/catalogue", token), ask(`${base}/encryption-policy`, token),
    ask(`${base}/app-instances?limit=200`, token), ask(`${base}/tickets?limit=20`, token),
  ]);
  const mode = [catalogue.modes].flat().find((one) => one.mode === policy.mode);
  at("label").textContent = mode ? mode.console : "Encryption keys";
  const [text, kind] = words[policy.lifecycle] ?? [policy.lifecycle, "warn"];
  const lines = [element("p", policy.degraded ? `${text}, degraded` : text, `big ${policy.degraded ? "warn" : kind}`)];
  lines.push(element("p", `AWS account ${policy.awsAccountId}, realm ${policy.realm}`));
  if (policy.window) lines.push(element("p", `Restoration: ${policy.window.phase}${policy.window.endsAt ? ` until ${when(policy.window.endsAt)}` : ""}`));
  if (policy.dueAt) lines.push(element("p", `Due ${when(policy.dueAt)}`));
  if (policy.lifecycle === "active") lines.push(element("p", `Disable every key, and data is unreadable within ${policy.cutOffBoundSeconds} s.`));
  if (policy.reencrypting) {
    const [job] = (await ask(`${base}/reencryptions`, token)).items;
    const { done, total, estimated } = job.progress;
    const far = total === null ? "" : `, ${done} of ${estimated ? "about " : ""}${total} records`;
    const still = job.pausedAt ? ", paused" : job.stopped ? `, stopped ${job.stopped}` : "";
    lines.push(element("p", `Re-encryption (${job.depth}): ${job.status}${far}${still}`, still ? "warn" : ""));
  }
  at("state").replaceChildren(...lines);
  table(at("keys"), ["Region", "Key", "Health", "Since", "What to do"],
    policy.keys.map((key) => [[key.region], [key.keyArn, "long"], [key.health, health(key.health)], [when(key.since)], [key.help ?? "", "long"]]));
  table(at("apps"), ["Site", "App", "Status", "Coverage", "Since"],
    apps.items.map((app) => [[app.site], [app.app], [app.status], [app.coverage], [when(app.since)]]));
  await showUsage(base, token);
  at("tickets").replaceChildren(...tickets.items.map((ticket) => {
    const box = element("details");
    box.open = ticket.status === "open";
    box.append(element("summary", `${ticket.title} (${ticket.status})`));
    ticket.comments.forEach((comment) => box.append(element("pre", `${when(comment.at)}  ${comment.author}\n${comment.body}`)));
    return box;
  }));
  at("view").hidden = false;
}

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("trouble").hidden = true;
  try {
    await show();
  } catch (error) {
    at("view").hidden = true;
    at("trouble").textContent = error.message;
    at("trouble").hidden = false;
  }
});
