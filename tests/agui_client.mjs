// Conversations with POST /agui, held by the official client, which verifies every event. Run by Node's test runner.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, test } from "node:test";

const { HttpAgent, buildResumeArray } = createRequire(process.env.GLASSBOX_AGUI)("@ag-ui/client");
const url = `${process.env.GLASSBOX_URL}agui`;

const warned = [];
for (const level of ["warn", "error"]) console[level] = (...said) => warned.push(said.join(" "));
const complaints = () => warned.splice(0);
after(() => assert.deepEqual(complaints(), []));

let count = 0;
const says = (content) => ({ id: `question-${++count}`, role: "user", content });

/** A client that notes each event, what each answer's headers were, and how each run ended. */
function talker(config = {}) {
  const heads = [];
  const agent = new HttpAgent({
    url,
    fetch: async (...wanted) => {
      const answer = await fetch(...wanted);
      heads.push(answer.headers);
      return answer;
    },
    ...config,
  });
  const run = async (message, parameters) => {
    const events = [];
    if (message) agent.addMessage(message);
    const ended = await agent.runAgent(parameters, { onEvent: ({ event }) => void events.push(event) });
    return { ...ended, events, last: events.at(-1), of: (type) => events.filter((one) => one.type === type) };
  };
  return { agent, heads, run };
}

/** Headers of a visitor who has opened the page: only with its cookie a thread is found again by its name. */
const visitor = async () => {
  const page = await fetch(process.env.GLASSBOX_URL);
  return { headers: { Cookie: page.headers.getSetCookie()[0].split(";")[0] } };
};

const custom = (run, name) => run.of("CUSTOM").filter((one) => one.name === name).map((one) => one.value);
const written = (run) => run.of("TEXT_MESSAGE_CONTENT").map((one) => one.delta).join("");
const replied = (run) => run.newMessages.filter((one) => one.role === "assistant").map((one) => one.content ?? "");
const answer = (agent, entry) =>
  buildResumeArray(agent.pendingInterrupts, Object.fromEntries(agent.pendingInterrupts.map((one) => [one.id, entry])));

test("a text", async () => {
  const { agent, heads, run } = talker();
  const received = await run(says("hello"), { runId: "run of mine" });
  const [first] = received.events;
  assert.deepEqual([first.type, first.threadId, first.runId], ["RUN_STARTED", agent.threadId, "run of mine"]);
  assert.equal(first.protocolVersion, "1.0");
  assert.equal(received.events[1].type, "STATE_SNAPSHOT");
  assert.equal(received.last.type, "RUN_FINISHED");
  assert.deepEqual(received.last.outcome, { type: "success" });
  assert.equal(received.result.status, "complete");
  assert.ok(received.result.usage.output_tokens > 0 && received.result.timing.duration_s >= 0);
  assert.match(replied(received).join(""), /I am a script, not a model/);
  assert.equal(agent.state.status, "complete");
  assert.equal(agent.state.tokens_received, received.result.usage.output_tokens);
  assert.equal(agent.state.backend, "Script");
  assert.equal(custom(received, "status")[0].content, "Processing...");
  const context = custom(received, "context")[0];
  assert.equal(context.messages.at(-1).content, "hello");
  assert.ok(received.of("STEP_STARTED").some((one) => one.stepName === "model"));
  assert.equal(received.of("STEP_STARTED").length, received.of("STEP_FINISHED").length);
  assert.match(heads[0].get("x-run-id"), /^[\w-]{22}$/);
  assert.equal(heads[0].get("cache-control"), "no-cache");
  assert.equal(heads[0].get("x-accel-buffering"), "no");
  assert.match(heads[0].get("content-type"), /^text\/event-stream/);
});

test("the tour thinks, calls tools and shows what they find as it comes", async () => {
  const { agent, run } = talker();
  const received = await run(says("tour"));
  const thought = agent.messages.find((one) => one.role === "reasoning");
  assert.match(thought.content, /^The visitor wants to see the page at work/);
  const caller = agent.messages.find((one) => one.toolCalls);
  const named = caller.toolCalls.map((one) => one.function.name);
  assert.deepEqual(named, ["calculator", "count"]);
  assert.deepEqual(JSON.parse(caller.toolCalls[0].function.arguments), { expression: "17*23" });
  const results = agent.messages.filter((one) => one.role === "tool");
  assert.deepEqual(new Set(results.map((one) => one.toolCallId)), new Set(caller.toolCalls.map((one) => one.id)));
  const counted = caller.toolCalls[1].id;
  const chunks = custom(received, "tool_output").filter((one) => one.tool_call_id === counted);
  assert.ok(chunks.length > 1);
  assert.equal(chunks.map((one) => one.chunk).join("").trim(), results.find((one) => one.toolCallId === counted).content.trim());
  assert.match(written(received), /What you are looking at[^]*model\.astream/);
  assert.equal(agent.messages.at(-1).role, "assistant");
});

test("an approval is an interrupt, and a resume goes on", async () => {
  const { agent, heads, run } = talker();
  const asked = await run(says("approval"), { runId: "first" });
  assert.equal(asked.last.outcome.type, "interrupt");
  const [interrupt] = agent.pendingInterrupts;
  assert.equal(agent.pendingInterrupts.length, 1);
  assert.equal(interrupt.reason, "tool_call");
  assert.match(interrupt.message, /careful_tool/);
  assert.ok(new Date(interrupt.expiresAt) > new Date());
  assert.equal(agent.messages.at(-1).toolCalls[0].id, interrupt.toolCallId);
  assert.equal(agent.state.status, "approval");

  await assert.rejects(run(null), /pending interrupt/);
  complaints();
  const received = await run(null, { runId: "second", resume: answer(agent, { status: "resolved", payload: { approved: true } }) });
  assert.equal(received.events[0].runId, "second");
  assert.deepEqual(received.of("TOOL_CALL_START"), []);
  const [result] = received.of("TOOL_CALL_RESULT");
  assert.deepEqual([result.toolCallId, result.content], [interrupt.toolCallId, "It said: Hello"]);
  assert.match(replied(received).join(""), /You have decided/);
  assert.equal(received.last.outcome.type, "success");
  assert.deepEqual(agent.pendingInterrupts, []);
  assert.equal(heads.at(-1).get("x-run-id"), heads[0].get("x-run-id"));
  assert.equal(agent.state.status, "complete");
  const ids = agent.messages.map((one) => one.id);
  assert.equal(new Set(ids).size, ids.length);

  const again = [{ interruptId: interrupt.id, status: "resolved", payload: { approved: true } }];
  await assert.rejects(run(null, { resume: again }), (error) => error.status === 409 && error.payload.code === "busy");
  complaints();
});

for (const [name, entry, content] of [
  ["with another input", { status: "resolved", payload: { approved: true, input: { text: "Bye" } } }, /^It said: Bye$/],
  ["with edited arguments", { status: "resolved", payload: { approved: true, editedArgs: { text: "Ho" } } }, /^It said: Ho$/],
  ["no", { status: "resolved", payload: { approved: false } }, /refused/],
  ["not at all", { status: "cancelled" }, /refused/],
]) {
  test(`an approval is answered: ${name}`, async () => {
    const { agent, run } = talker();
    await run(says("approval"));
    const received = await run(null, { resume: answer(agent, entry) });
    assert.match(received.of("TOOL_CALL_RESULT")[0].content, content);
    assert.equal(received.result.status, "complete");
  });
}

test("instead of an answer something else is asked", async () => {
  const { agent, run } = talker();
  await run(says("approval"));
  const received = await run(says("never mind"), { resume: answer(agent, { status: "cancelled" }) });
  assert.equal(received.result.status, "complete");
  assert.equal(custom(received, "context")[0].messages.at(-1).content, "never mind");
});

test("an error ends the run, what came of it stays, and the thread goes on", async () => {
  const { agent, run } = talker();
  const received = await run(says("cut"));
  assert.equal(received.last.type, "RUN_ERROR");
  assert.equal(received.last.code, "backend_unavailable");
  assert.match(received.last.message, /\w/);
  assert.match(agent.messages.at(-1).content, /breaks off/);
  const next = await run(says("hello"));
  assert.equal(next.result.status, "complete");
});

test("a visitor's thread remembers, and our store is its truth", async () => {
  const { agent, heads, run } = talker(await visitor());
  await run(says("the first"));
  agent.messages.find((one) => one.content === "the first").content = "something else";
  const received = await run(says("the second"));
  const given = custom(received, "context")[0].messages.map((one) => one.content);
  assert.ok(given.includes("the first") && given.includes("the second") && !given.includes("something else"));
  assert.equal(given.length, 4);
  assert.equal(heads[0].get("x-conversation-id"), heads[1].get("x-conversation-id"));
});

test("a new thread begins with the messages that it comes with", async () => {
  const given = [
    { id: "1", role: "developer", content: "Be brief." },
    { id: "2", role: "user", content: [{ type: "text", text: "One " }, { type: "text", text: "two." }] },
    { id: "3", role: "assistant", content: "Three." },
  ];
  const { run } = talker({ initialMessages: given });
  const received = await run(says("And then?"), { forwardedProps: { backend: "Slow script", memory: "full", other: 1 } });
  const messages = custom(received, "context")[0].messages.map((one) => [one.role, one.content]);
  assert.deepEqual(messages.map(([role]) => role), ["system", "user", "assistant", "user"]);
  assert.match(messages[1][1], /Be brief\.[^]*One two\.$/);
  assert.deepEqual(messages.slice(2).map(([, content]) => content), ["Three.", "And then?"]);
  assert.equal(received.events[1].snapshot.backend, "Slow script");
  assert.equal(received.events[1].snapshot.memory, "full");
});

test("without a cookie a thread's name opens no other client's thread, and its own messages are enough", async () => {
  const threadId = "customer-support-thread-1";
  const { agent, heads, run } = talker({ threadId });
  await run(says("a secret"));
  const stranger = talker({ threadId });
  const seen = await stranger.run(says("hello"));
  assert.ok(!JSON.stringify(seen.events).includes("a secret"));
  const received = await run(says("again"));
  assert.ok(custom(received, "context")[0].messages.some((one) => one.content === "a secret"));
  await run(says("approval"));
  const done = await run(null, { resume: answer(agent, { status: "resolved", payload: { approved: true } }) });
  assert.equal(done.result.status, "complete");
  assert.equal(heads.at(-1).get("x-run-id"), heads.at(-2).get("x-run-id"));
});

test("what cannot be done is refused before a run begins", async () => {
  const { run } = talker();
  const picture = { type: "image", source: { type: "url", value: "https://example.org/cat.png" } };
  const wanted = [says([{ type: "text", text: "What is this?" }, picture]), { forwardedProps: {} }];
  await assert.rejects(run(...wanted), (error) => error.status === 400 && /'image'/.test(error.payload.message));
  const nobody = talker();
  await assert.rejects(nobody.run(null), (error) => error.status === 400 && error.payload.code === "invalid_request");
  const elsewhere = talker();
  const unknown = elsewhere.run(says("hello"), { forwardedProps: { backend: "No such" } });
  await assert.rejects(unknown, (error) => error.status === 404 && /No such/.test(error.payload.message));
  complaints();
});

test("a client that leaves and one that comes too early", async () => {
  const cookie = await visitor();
  const { agent, run } = talker(cookie);
  const aborted = new AbortController();
  const endless = run(says("endless"), { abortController: aborted, forwardedProps: { backend: "Slow script" } });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const early = talker({ ...cookie, threadId: agent.threadId });
  await assert.rejects(early.run(says("hello")), (error) => error.status === 409);
  complaints();
  aborted.abort();
  await endless;
  complaints();
});
