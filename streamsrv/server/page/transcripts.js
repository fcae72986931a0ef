// Addresses of the server, and what it answers to plain requests. All lie beside the page, also behind a proxy.

export const address = (path) => new URL(path, document.baseURI);

export const streamPath = (interview) => `transcription/stream/${encodeURIComponent(interview)}`;

export const transcriptPath = (interview, format) =>
  `transcription/${encodeURIComponent(interview)}?format=${format}`;

// A plain GET with the key, if any.
export const ask = (path, key) =>
  fetch(address(path), { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store" });

// A browser does not tell why a handshake was refused; the same path asked plainly does, as far as it goes.
// Gives { status, code, message, hint }; status 0 when nobody answers, 426 when a WebSocket would be welcome.
export async function whyRefused(interview, key) {
  try {
    const response = await ask(streamPath(interview), key);
    const { error = {} } = await response.json();
    return { ...error, status: response.status };
  } catch {
    return { status: 0 };
  }
}

// How the stream ended: { audioMs, segments }, both as far as they are known; null when it lives or nobody can say.
export async function ending(interview, stream, key) {
  try {
    const response = await ask(transcriptPath(interview, "json"), key);
    if (!response.ok) return response.status === 404 ? { audioMs: null, segments: [] } : null;
    const { streams, segments } = await response.json();
    const ours = streams.find(({ id }) => id === stream);
    if (ours?.status === "live") return null;
    return { audioMs: ours?.audio_ms ?? null, segments: segments.filter((segment) => segment.stream === stream) };
  } catch {
    return null;
  }
}

// With a key the browser cannot follow a plain link: fetch, and hand the file over.
export async function download(interview, format, key) {
  const response = await ask(transcriptPath(interview, format), key);
  if (!response.ok) throw new Error((await response.json()).error.message);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = `${interview.replaceAll(":", "_")}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
