// Drives a stock @fal-ai/client, of whatever version lies in a folder.
//
// Reads a list of steps, as JSON, from stdin, and writes one JSON line for each: {"value": …} or
// {"error": {"status", "message", "body"}}. Arguments: the folder with node_modules, and a file with
// lines of code to run before, as `client-env --client js` prints them.

const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

const [folder, setup] = process.argv.slice(2);
const { fal } = createRequire(path.join(folder, "package.json"))("@fal-ai/client");

const PATIENCE_MS = 60_000;

const operations = {
  async run({ app, input }) {
    const { data, requestId } = await fal.run(app, { input });
    if (!requestId) throw new Error("no request id");
    return data;
  },

  async stream({ app, input }) {
    const stream = await fal.stream(app, { input });
    const events = [];
    stream.on("data", (event) => events.push(event));
    const last = await stream.done();
    if (JSON.stringify(events.at(-1)) !== JSON.stringify(last)) throw new Error("events differ");
    return events;
  },

  async subscribe({ app, input, mode }) {
    const seen = [];
    const { data } = await fal.subscribe(app, {
      input,
      mode,
      logs: true,
      pollInterval: 50,
      onQueueUpdate: (update) => seen.push(update),
    });
    return { value: data, statuses: names(seen), logs: messages(seen.at(-1)) };
  },

  async submit({ app, input, webhook }) {
    const { request_id: requestId } = await fal.queue.submit(app, { input, webhookUrl: webhook });
    const last = await until(app, requestId, "COMPLETED");
    const { data } = await fal.queue.result(app, { requestId });
    return { request_id: requestId, value: data, logs: messages(last) };
  },

  async cancel({ app, input }) {
    const { request_id: requestId } = await fal.queue.submit(app, { input });
    await until(app, requestId, "IN_PROGRESS");
    await fal.queue.cancel(app, { requestId });
    await until(app, requestId, "COMPLETED");
    return (await fal.queue.result(app, { requestId })).data;
  },

  async upload({ app, input, file }) {
    const blob = new Blob([fs.readFileSync(file)], { type: "image/png" });
    const url = await fal.storage.upload(blob);
    const { data } = await fal.run(app, { input: { ...input, image_url: url } });
    // The same without a call of ours: a Blob in the input is uploaded by the client.
    const implied = await fal.run(app, { input: { ...input, image_url: blob } });
    if (JSON.stringify(implied.data) !== JSON.stringify(data)) throw new Error("answers differ");
    return { url, value: data };
  },
};

async function until(app, requestId, status) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await fal.queue.status(app, { requestId, logs: true });
    if (found.status === status) return found;
    if (Date.now() > deadline) throw new Error(`${found.status} for too long`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const names = (updates) => updates.map((update) => update.status);
const messages = (update) => (update.logs ?? []).map((line) => line.message);

async function main() {
  if (setup) new Function("fal", "require", fs.readFileSync(setup, "utf8"))(fal, require);
  for (const step of JSON.parse(fs.readFileSync(0, "utf8"))) {
    let outcome;
    try {
      outcome = { value: await operations[step.op](step) };
    } catch ({ status, message, body, name }) {
      outcome = { error: { status: status ?? null, message, body, kind: name } };
    }
    console.log(JSON.stringify(outcome));
  }
}

main();
