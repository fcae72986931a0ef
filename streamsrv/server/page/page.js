// The page: from the form to a source and a link, and back to words and states.

import * as captions from "./captions.js";
import { Link } from "./link.js";
import { microphone, recording } from "./sources.js";
import { address, download, transcriptPath } from "./transcripts.js";

const QUIET_DB = -60; // RMS of full scale at which the level bar is empty
const LOUD_DB = -10; // and full

const $ = (id) => document.getElementById(id);
const LABELS = {
  idle: "Ready",
  opening: "Opening",
  connecting: "Connecting",
  listening: "Listening",
  reconnecting: "Reconnecting",
  finishing: "Finishing",
  ended: "Ended",
  key: "Key needed",
  error: "Stopped",
};
const OVER = new Set(["idle", "ended", "key", "error"]);
const PHASES = { idle: "choose", key: "choose", error: "choose", ended: "done" }; // all others: "live"

let state = "idle";
let source = null;
let link = null;
let stopping = false;
let named = ""; // the interview id this page made up itself
let lostS = 0; // seconds spoken while there was no room for them

// --- what is shown ---------------------------------------------------------------------------------------------

function show(next) {
  state = next;
  $("status").dataset.state = next;
  $("status-text").textContent = LABELS[next];
  const over = OVER.has(next);
  const phase = PHASES[next] ?? "live";
  document.body.dataset.phase = phase;
  $("choices").disabled = phase !== "choose";
  $("go").textContent = { choose: "Start", live: stopping ? "Leave now" : "Stop", done: "New talk" }[phase];
  $("go").classList.toggle("stop", !over);
  if (over) level(0);
}

function notice(message, hint = "") {
  $("notice-text").textContent = message;
  $("notice-hint").textContent = hint;
  $("notice").hidden = !message;
}

function level(loud) {
  const share = (20 * Math.log10(loud || 1e-6) - QUIET_DB) / (LOUD_DB - QUIET_DB);
  $("level-bar").style.transform = `scaleX(${Math.max(0, Math.min(1, share)).toFixed(3)})`;
}

function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length)) / 32768;
}

function askForKey(message) {
  $("key-field").hidden = $("key-help").hidden = false;
  notice(message, "Type it above and start again.");
  $("key").focus();
  $("key").select();
}

function offerTranscript(interview) {
  for (const anchor of $("transcript").querySelectorAll("a")) {
    const { format } = anchor.dataset;
    anchor.href = address(transcriptPath(interview, format));
    anchor.download = `${interview.replaceAll(":", "_")}.${format}`;
    anchor.onclick = (event) => {
      if (!$("key").value) return;
      event.preventDefault();
      download(interview, format, $("key").value).catch((error) => notice("The transcript cannot be had.", error.message));
    };
  }
  $("transcript-of").textContent = interview;
  $("transcript").hidden = false;
}

// --- what the link tells ---------------------------------------------------------------------------------------

const told = {
  state(next, detail = {}) {
    show(next);
    if (!OVER.has(next)) return;
    silence();
    captions.hide();
    if (next === "key") askForKey(detail.message);
    else if (next === "error") notice(detail.message, detail.hint);
    else if (!lostS) notice("");
    if (detail.incomplete) notice("Left before the end was stored.", "The transcript has what the server heard so far.");
  },
  ready(message) {
    const { name, model, note } = message.engine;
    $("engine").textContent = [`Heard by ${name}`, model, note].filter(Boolean).join(" · ");
    offerTranscript(message.interview);
  },
  partial: captions.showPartial,
  final: captions.showFinal,
  notice: (message) => (message || !lostS) && notice(message),

};

// --- from Start to Stop ----------------------------------------------------------------------------------------

function openSource() {
  if ($("controls").elements.source.value === "microphone") return microphone();
  return recording($("file").files[0], $("pace").value === "spoken");
}

async function start() {
  if (!acceptable()) return;
  stopping = false;
  lostS = 0;
  notice("");
  captions.clear();
  $("transcript").hidden = true;
  $("clock").textContent = "0:00";
  show("opening");
  $("go").focus({ preventScroll: true }); // the field that had it is hidden now
  try {
    source = await openSource();
  } catch (error) {
    show("error");
    notice(error.hint ? error.message : "The audio cannot be opened.", error.hint ?? error.message);
    return;
  }
  link = new Link({ interview: $("interview").value, rate: source.rate, key: $("key").value, told });
  source?.begin(give, () => stopping || stop());
}

function give(samples) {
  const taken = link.append(samples);
  level(loudness(samples));
  if (taken) $("clock").textContent = captions.clock(link.seconds * 1000);
  else if (isLive()) lose(samples.length / link.rate);
  return taken;
}

const isLive = () => $("controls").elements.source.value === "microphone" && !OVER.has(state);

// The connection has been away for so long that nothing more fits: say so, and how much was lost.
function lose(seconds) {
  lostS += seconds;
  notice(`${Math.ceil(lostS)} s were spoken and not kept.`, "The page keeps one minute while the connection is away.");
}

async function stop() {
  if (stopping) {
    link.abandon();
    return;
  }
  stopping = true;
  show(state);
  level(0);
  const ours = source;
  source = null;
  await ours?.stop();
  link.finish();
}

// Back to the choices; what was said stays in sight until the next start.
function again() {
  show("idle");
  notice("");
  if ($("interview").value === named) $("interview").value = named = freshName();
  $("controls").querySelector(":checked").focus();
}

function silence() {
  source?.stop();
  source = null;
}

// --- the form --------------------------------------------------------------------------------------------------

function acceptable() {
  const interview = $("interview");
  const id = interview.value.trim();
  interview.value = id;
  const good = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/.test(id) && !id.includes("..");
  const free = !["upload", "jobs", "stream", "tokens"].includes(id);
  interview.setCustomValidity(
    good && free ? "" : "Letters, digits and _ . : - (a letter or digit first, no ..), up to 128 of them",
  );
  const file = $("file");
  const missing = $("controls").elements.source.value === "file" && !file.files.length;
  file.setCustomValidity(missing ? "Choose a recording first" : "");
  return $("controls").reportValidity();
}

function freshName() {
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  return `talk-${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

$("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  if (state === "ended") again();
  else if (OVER.has(state)) start();
  else if (state !== "opening") stop();
});
$("controls").addEventListener("change", () => {
  $("file-choices").hidden = $("controls").elements.source.value !== "file";
});
addEventListener("beforeunload", (event) => {
  if (state === "reconnecting" || state === "finishing") event.preventDefault(); // there is audio only this page has
});
$("interview").addEventListener("input", () => $("interview").setCustomValidity(""));
$("interview").value = new URLSearchParams(location.search).get("interview") ?? (named = freshName());
$("file-choices").hidden = $("controls").elements.source.value !== "file";
