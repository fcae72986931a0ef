// The captions: finals as lines with their times, the open segment below, its stable part plain, the rest dim.

const MOST_LINES = 2000; // older ones leave the page; the transcript has them
const NEAR_END_PX = 80; // the reader follows while this close to the end

const box = document.getElementById("captions");
const finals = document.getElementById("finals");
const open = document.getElementById("partial");
const stable = document.getElementById("stable");
const unstable = document.getElementById("unstable");
const empty = document.getElementById("empty");

// Milliseconds as 0:05, 12:05 or 1:02:05.
export function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  const two = (number) => String(number).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export function clear() {
  finals.replaceChildren();
  hide();
  empty.hidden = false;
}

export function showPartial({ text, stable_chars: chars }) {
  follow(() => {
    const points = Array.from(text); // stable_chars counts code points
    stable.textContent = points.slice(0, chars).join("");
    unstable.textContent = points.slice(chars).join("");
    open.hidden = !text;
    if (text) empty.hidden = true;
  });
}

export function showFinal({ text, start_ms: startMs, failed }) {
  follow(() => {
    hide();
    if (!text && !failed) return;
    empty.hidden = true;
    finals.append(line(startMs, text || "(speech the engine could not read)", Boolean(failed)));
    while (finals.childElementCount > MOST_LINES) finals.firstElementChild.remove();
  });
}

function line(startMs, text, failed) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  const words = document.createElement("span");
  time.textContent = clock(startMs);
  time.dateTime = `PT${(startMs / 1000).toFixed(3)}S`;
  words.textContent = text;
  words.classList.toggle("failed", failed);
  item.append(time, words);
  return item;
}

// Nothing is open any more.
export function hide() {
  open.hidden = true;
  stable.textContent = "";
  unstable.textContent = "";
}

// Change something; keep the end in sight unless the reader has scrolled back.
function follow(change) {
  const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
  change();
  if (near) box.scrollTop = box.scrollHeight;
}
