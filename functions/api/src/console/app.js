// A read-only view of one organisation's encryption policy. The token stays in this page's memory.
const at = (id) => document.getElementById(id);
const words = {
  active: ["Active", "good"], suspended: ["Suspended", "bad"], restoring: ["Being restored", "warn"],
  requested: ["Waiting for approval", "warn"], verifying: ["Keys are being verified", "warn"],
  lapsed: ["Restoration window over", "bad"], closed: ["Closed", "bad"], rejected: ["Rejected", "bad"],
};
const causes = { key: "its keys refuse", vendor: "the vendor suspended it", closing: "the organisation is leaving" };
const outcomes = {
  suspended: "access would be cut off", degraded: "data would stay readable through another region", unchanged: "nothing would change",
};
const health = (word) => (word === "usable" ? "good" : ["unreachable", "throttled", "unknown"].includes(word) ? "warn" : "bad");
// Always with its time zone: tickets and CloudTrail are in UTC.
const when = (text) => (text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" }) : "");

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
    cells.forEach(([content, kind]) => {
      const cell = element("td", "", kind);
      cell.append(content);
      row.append(cell);
    });
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

// What the state means, and what somebody who was woken by it does next.
function story(policy, organisation) {
  const said = [];
  const say = (text, kind = "") => said.push(element("p", text, kind));
  const ours = policy.fence.causes.includes("key");
  if (!policy.fence.open) say(`Nobody reads or writes this organisation's data: ${policy.fence.causes.map((cause) => causes[cause] ?? cause).join(", and ")}.${policy.fence.causes.includes("closing") ? "" : " Nothing is deleted by that."}`, "bad");
  if (policy.degraded && policy.fence.open) say("One region's key refuses; data is served through the other. A revocation is complete only when every key refuses.", "warn");
  if (ours && ["suspended", "lapsed"].includes(policy.lifecycle)) {
    const back = policy.keys.every((key) => key.health === "usable");
    say(back ? "Every key works again. Access does not come back by itself: ask for it." : "To come back, give every key back first (below: what to do, key by key); then ask for it.", back ? "warn" : "");
    const call = policy.lifecycle === "lapsed"
      ? ["tickets/" + policy.ticketId + "/comments", { body: "...", request: "restoration" }, "and support carries it out"]
      : ["restorations", { ticketId: policy.ticketId }, "as an org admin; it takes minutes"];
    say(`POST /v1/organizations/${organisation}/${call[0]} ${JSON.stringify(call[1])}, ${call[2]}.`, "call");
  }
  if (policy.lifecycle === "restoring") say("The keys are being proven again; the fence opens when two rounds in a row find every one of them usable.");
  if (policy.vendorSuspension) say(`Suspended by the vendor since ${when(policy.vendorSuspension.since)}: ${policy.vendorSuspension.reason} ${policy.vendorSuspension.help}.`, "bad");
  if (policy.liftProposal) say(`A support agent calls the suspension a mistake: ${policy.liftProposal.reason} A second one may confirm it until ${when(policy.liftProposal.until)}.`, "warn");
  if (policy.keyChangeProposal) say(`A new key for ${policy.keyChangeProposal.region} waits for a second org admin until ${when(policy.keyChangeProposal.until)}.`, "warn");
  if (policy.window) {
    say(`Restoration is ${policy.window.phase}${policy.window.endsAt ? ` until ${when(policy.window.endsAt)}` : ""}, counted from the cut-off at ${when(policy.window.cutOffAt)}.`);
  }
  if (policy.closing) say(`The organisation is leaving (${policy.closing.stage}).`, "warn");
  policy.accessRequests.filter((asked) => asked.status !== "accepted")
    .forEach((asked) => say(`Access request ${asked.version} is ${asked.status}: ${asked.permissions.join(", ")}, to be decided by ${when(asked.decideBy)}.`, "warn"));
  if (policy.reason) say(`Reason: ${policy.reason}`, "warn");
  if (policy.dueAt) say(`Due by ${when(policy.dueAt)} at the latest.`);
  if (policy.lifecycle === "active" && policy.fence.open) say(`Disable every key, and data is unreadable within ${policy.cutOffBoundSeconds} s.`);
  return said;
}

// What would happen if this key were disabled now: asked of the API, nothing is changed.
function preview(base, key, token) {
  const cell = element("div");
  const button = element("button", "What if I disable it?");
  button.addEventListener("click", async () => {
    try {
      const seen = await ask(`${base}/encryption-policy/keys/${encodeURIComponent(key.region)}/preview`, token);
      const lines = [`${outcomes[seen.outcome] ?? seen.outcome}.`];
      if (seen.outcome === "suspended") lines.push(`${seen.appInstances} encrypted apps and ${seen.siblings} of their families would stop within ${seen.boundSeconds} s.`);
      lines.push(`Back: ${seen.help}.`, `To weigh: ${seen.guidance}.`);
      cell.replaceChildren(...lines.map((line) => element("p", line)));
    } catch (error) {
      cell.replaceChildren(element("p", error.message, "bad"));
    }
  });
  cell.append(button);
  return cell;
}

function foretold(key) {
  const coming = key.countdowns.map((one) => `${one.what} at ${when(one.at)}`);
  return [...coming, ...(key.givenUp ? ["given up"] : []), ...(key.replacement ? [`to be replaced by ${key.replacement}`] : [])].join("; ");
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
  const lines = [element("p", policy.degraded ? `${text}, degraded` : text, `big ${policy.degraded && kind === "good" ? "warn" : kind}`)];
  lines.push(element("p", `AWS account ${policy.awsAccountId}, realm ${policy.realm}. As of ${when(Date.now())}; this page does not refresh itself.`));
  lines.push(...story(policy, organisation));
  if (policy.reencrypting) {
    const [job] = (await ask(`${base}/reencryptions`, token)).items;
    const { done, total, estimated } = job.progress;
    const far = total === null ? "" : `, ${done} of ${estimated ? "about " : ""}${total} records`;
    const still = job.pausedAt ? ", paused" : job.stopped ? `, stopped ${job.stopped}` : "";
    lines.push(element("p", `Re-encryption (${job.depth}): ${job.status}${far}${still}`, still ? "warn" : ""));
  }
  at("state").replaceChildren(...lines);
  table(at("keys"), ["Region", "Key", "Health", "Since", "Last probed", "Foretold", "What to do", ""],
    policy.keys.map((key) => [[key.region], [key.keyArn, "long"], [key.health, health(key.health)], [when(key.since)],
      [when(key.lastProbeAt)], [foretold(key), "warn"], [key.help ?? "", "long"],
      [policy.lifecycle === "active" ? preview(base, key, token) : ""]]));
  table(at("apps"), ["Site", "App", "Status", "Coverage", "Since", "App's answer"],
    apps.items.map((app) => [[app.site], [app.app], [app.status, app.status === "suspended" ? "bad" : ""], [app.coverage], [when(app.since)],
      [app.acknowledged ? `order ${app.acknowledged.epoch} at ${when(app.acknowledged.at)}, ${app.acknowledged.evicted} dropped` : ""]]));
  at("more").hidden = !apps.nextCursor;
  await showUsage(base, token);
  at("tickets").replaceChildren(...tickets.items.map((ticket) => {
    const box = element("details");
    box.open = ticket.status === "open";
    box.append(element("summary", `${ticket.title} (${ticket.status})`));
    ticket.comments.forEach((comment) => box.append(element("pre", `${when(comment.at)}  ${comment.author}\n${comment.body}`)));
    return box;
  }));
  at("older").hidden = !tickets.nextCursor;
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
