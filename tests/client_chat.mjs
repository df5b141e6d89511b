// One message through client.js over the line that is given; prints what the callbacks received, as one line of JSON.
const { connectChat, streamChat } = await import(process.env.GLASSBOX_CLIENT);
const { url, over, message, backend } = JSON.parse(process.argv[2]);

const seqs = [], received = {}, connected = { lines: 0, dropped: 0 };
let text = "";
const handlers = {
  event: (event) => { seqs.push(event.seq); received[event.type] = (received[event.type] ?? 0) + 1; },
  token: (event) => { text += event.content; },
  connected: () => { connected.lines++; },
  reconnecting: () => { connected.dropped++; },
};
const options = { url, retry: { attempts: 60, delay: 4 } };
const wanted = { message, backend };
let last;
if (over === "socket") {
  const chat = connectChat(options, handlers);
  last = await chat.send(wanted);
  chat.close();
} else {
  last = await streamChat({ ...wanted, ...options }, handlers).done;
}
console.log(JSON.stringify({ seqs, text, received, connected, last }));
