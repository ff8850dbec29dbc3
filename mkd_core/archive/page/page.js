"use strict";
// Data come in columns: entry i of every list belongs to study i. Nothing is loaded from anywhere; texts are only ever
// set as text. Only the rows in view are in the document.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const count = data.ids.length;
  const structures = data.structures;
  const ROW = 100;
  const byId = (id) => document.getElementById(id);

  const make = (tag, properties = {}, children = []) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "data") Object.assign(element.dataset, value);
      else if (name.includes("-") || name === "role") element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children);
    return element;
  };
  const shape = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const figure = (value, digits = 0) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);
  const dot = (structure) => {
    const element = make("span", { className: "dot" });
    element.style.setProperty("--colour", structure.colour);
    return element;
  };

  // ---- decisions: those of the ledger, then those made on this page, which also survive a closed window ----

  const storageName = `mkd-review-${data.run}`;
  const numbers = new Map(data.ids.map((id, i) => [id, i]));
  const made = new Map();
  const remember = (stored) => {
    for (const one of stored) {
      const i = numbers.get(one.id);
      if (i === undefined || (data.decided[i] !== null && Date.parse(data.decided[i]) >= Date.parse(one.when))) continue;
      made.set(one.id, one);
      data.decisions[i] = one.decision;
      data.notes[i] = one.note;
      data.decided[i] = one.when;
    }
  };
  try {
    remember(JSON.parse(localStorage.getItem(storageName) ?? "[]"));
  } catch {
    // A browser may keep nothing for files: the saved file is what counts.
  }
  const decide = (i, decision, note) => {
    if (i === null || data.states[i] !== "done") return;
    // A decision replaces the one before, also where the clock has not moved on.
    const last = data.decided[i] === null ? 0 : Date.parse(data.decided[i]);
    const when = new Date(Math.max(Date.now(), last + 1)).toISOString();
    data.decisions[i] = decision;
    data.notes[i] = note;
    data.decided[i] = when;
    made.set(data.ids[i], { id: data.ids[i], decision, note, when });
    unsaved = true;
    try {
      localStorage.setItem(storageName, JSON.stringify([...made.values()]));
    } catch {
      // as above
    }
    showProgress();
  };
  let unsaved = false;
  const save = () => {
    const content = { format: data.format, run: data.run, reviews: [...made.values()] };
    const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
    make("a", { href: url, download: `review-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    unsaved = false;
  };
  addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });

  // ---- filters and order ----

  const wanted = { show: "all", warning: "", outliers: false, text: "", ranges: new Map() };
  const sorting = { by: "doubt", descending: true };
  let shown = [];
  let selected = null;

  const fits = (i, without = null) => {
    const { show } = wanted;
    if (show === "failed" && data.states[i] !== "failed") return false;
    if (["open", "accept", "reject"].includes(show)) {
      if (data.states[i] !== "done" || (data.decisions[i] ?? "open") !== show) return false;
    }
    if (wanted.warning && !data.warnings[i].some(([code]) => data.codes[code].name === wanted.warning)) return false;
    if (wanted.outliers && !data.outliers[i]) return false;
    if (wanted.text && ![data.ids[i], data.studies[i], data.patients[i]].some((id) => id.startsWith(wanted.text))) return false;
    for (const [s, [low, high]] of wanted.ranges) {
      if (s === without) continue;
      const volume = data.volumes[s][i];
      if (volume === null || volume < low || volume > high) return false;
    }
    return true;
  };
  const severityRank = { none: 0, amber: 1, red: 2 };
  const decisionRank = { accept: 1, reject: 2 };
  const values = {
    doubt: (i) => data.doubts[i] ?? -1,
    about: (i) => data.warnings[i].length + 1000 * (severityRank[data.severities[i]] ?? 3),
    agreement: (i) => data.agreements[i] ?? -1,
    decision: (i) => decisionRank[data.decisions[i]] ?? 0,
    ...Object.fromEntries(structures.map((one, s) => [one.key, (i) => data.volumes[s][i] ?? -1])),
  };
  const apply = () => {
    const keys = new Float64Array(count);
    shown = [];
    for (let i = 0; i < count; i++) {
      if (!fits(i)) continue;
      shown.push(i);
      keys[i] = values[sorting.by](i);
    }
    const sign = sorting.descending ? -1 : 1;
    shown.sort((a, b) => (keys[a] === keys[b] ? a - b : sign * (keys[a] < keys[b] ? -1 : 1)));
    if (selected === null || !shown.includes(selected)) selected = shown[0] ?? null;
    byId("shown").textContent = `${shown.length.toLocaleString("en")} of ${count.toLocaleString("en")}`;
    byId("nothing").hidden = shown.length > 0;
    byId("space").style.height = `${shown.length * ROW}px`;
    drawRows(true);
    drawDistributions();
    showDetail();
  };

  // ---- table ----

  const list = byId("list");
  const columns = [
    { name: "", title: "Axial, coronal, sagittal, from outside" },
    { key: "doubt", name: "Doubt", title: data.doubtText },
    { key: "about", name: "Study and warnings", title: "Worst first" },
    ...structures.map((one) => ({ key: one.key, name: one.abbreviation, title: `${one.name}, ml`, number: true })),
    { key: "agreement", name: "Agree", title: "Dice overlap of the two segmentors", number: true },
    { key: "decision", name: "Decision", title: "" },
  ];
  const head = byId("head");
  document.documentElement.style.setProperty("--structures", structures.length);
  const many = structures.length > 8; // more than fit beside large thumbnails
  document.body.classList.toggle("many", many);
  for (const column of columns) {
    const cell = make("div", { role: "columnheader", title: column.title, className: column.number ? "number" : "" });
    if (column.key) {
      const button = make("button", { type: "button", textContent: column.name, data: { sort: column.key } });
      button.addEventListener("click", () => {
        sorting.descending = sorting.by === column.key ? !sorting.descending : true;
        sorting.by = column.key;
        list.scrollTop = 0;
        showSorting();
        apply();
      });
      cell.append(button);
    }
    head.append(cell);
  }
  const showSorting = () => {
    for (const cell of head.children) {
      if (cell.firstChild?.dataset.sort === sorting.by) {
        cell.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
      } else cell.removeAttribute("aria-sort");
    }
  };

  const blocks = new Map();
  const embedded = (i) => {
    const [block, start, length] = data.pictures[i];
    if (!length) return null;
    if (!blocks.has(block)) blocks.set(block, byId(`pictures-${block}`).textContent);
    return `data:image/webp;base64,${blocks.get(block).substr(start, length)}`;
  };
  const beside = (i, name) => `results/${data.ids[i].slice(0, 2)}/${data.ids[i]}/${name}`;
  const pictureOf = (i) => embedded(i) ?? (data.states[i] === "done" ? beside(i, "thumbnail.webp") : null);

  const drawn = new Map();
  const spare = [];
  const drawRows = (anew) => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 3);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 3);
    for (const [position, row] of drawn) {
      if (anew || position < first || position >= last) {
        drawn.delete(position);
        spare.push(row);
      }
    }
    for (let position = first; position < last; position++) {
      if (drawn.has(position)) continue;
      const row = spare.pop() ?? newRow();
      fill(row, shown[position], position);
      drawn.set(position, row);
    }
    while (spare.length) spare.pop().remove();
  };
  const newRow = () => {
    const row = make("div", { className: "row", role: "row" });
    row.append(...columns.map((column) => make("div", { role: "gridcell", className: column.number ? "number" : "" })));
    row.children[0].append(make("img", { alt: "", decoding: "async" }));
    byId("space").append(row);
    return row;
  };
  const fill = (row, i, position) => {
    row.style.transform = `translateY(${position * ROW}px)`;
    row.dataset.number = i;
    row.setAttribute("aria-rowindex", position + 2);
    row.setAttribute("aria-selected", i === selected);
    row.classList.toggle("selected", i === selected);
    const [picture, doubt, about, ...rest] = row.children;
    const source = pictureOf(i);
    if (source) picture.firstChild.src = source;
    else picture.firstChild.removeAttribute("src");
    doubt.textContent = data.states[i] === "failed" ? "failed" : figure(data.doubts[i], 1);
    doubt.className = `doubt ${data.states[i] === "failed" ? "red" : data.severities[i]}`;
    about.className = "about";
    about.replaceChildren(make("code", { textContent: data.ids[i].slice(0, 12), title: data.ids[i] }), chips(i));
    structures.forEach((one, s) => {
      const cell = rest[s];
      cell.textContent = figure(data.volumes[s][i]);
      cell.className = `number${isOutlier(i, s) ? " outlier" : ""}`;
      cell.title = isOutlier(i, s) ? `${one.name}: an outlier of this cohort` : "";
    });
    rest[structures.length].textContent = percent(data.agreements[i]);
    const decision = data.decisions[i] ?? "open";
    const words = { accept: "✓ accepted", reject: "✕ rejected", open: data.states[i] === "done" ? "to review" : "" };
    rest[structures.length + 1].className = `decision ${decision}`;
    rest[structures.length + 1].textContent = words[decision] + (data.notes[i] ? " ✎" : "");
  };
  const isOutlier = (i, s) => ((data.outliers[i] >> s) & 1) === 1;
  const chips = (i) => {
    const box = make("div", { className: "chips" });
    if (data.states[i] === "failed") {
      box.append(make("span", { className: "chip red", textContent: data.reasons[i], title: data.reasons[i] }));
      return box;
    }
    const told = data.warnings[i].filter(([code]) => data.codes[code].severity !== "info");
    for (const [code, text] of told.slice(0, 5)) {
      const { label, severity } = data.codes[code];
      box.append(make("span", { className: `chip ${severity}`, textContent: label, title: data.texts[text] }));
    }
    if (told.length > 5) box.append(make("span", { className: "chip", textContent: `+${told.length - 5}` }));
    if (!told.length) box.append(make("span", { className: "chip none", textContent: "no warning" }));
    return box;
  };
  list.addEventListener("scroll", () => drawRows(false), { passive: true });
  new ResizeObserver(() => {
    head.style.paddingRight = `${10 + list.offsetWidth - list.clientWidth}px`; // beside the scroll bar
    drawRows(false);
  }).observe(list);
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) select(Number(row.dataset.number));
  });
  const select = (i) => {
    selected = i;
    drawRows(true);
    showDetail();
  };
  const step = (by) => {
    const position = Math.min(Math.max(shown.indexOf(selected) + by, 0), shown.length - 1);
    if (position < 0) return;
    const top = position * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    select(shown[position]);
  };

  // ---- selected study ----

  const showDetail = () => {
    const detail = byId("detail");
    detail.replaceChildren();
    if (selected === null) return;
    const i = selected;
    const facts = [data.modalities[i], data.grids[i], data.patients[i] && `patient ${data.patients[i].slice(0, 12)}`];
    detail.append(
      make("h2", { textContent: data.ids[i] }),
      make("p", { className: "soft", textContent: facts.filter(Boolean).join(" · ") }),
    );
    if (data.states[i] === "failed") {
      detail.append(make("ul", {}, [make("li", { className: "red", textContent: data.reasons[i] })]));
      return;
    }
    detail.append(tiles(i), verdict(i), noteField(i), warningList(i), table(i));
  };
  const tiles = (i) => {
    const names = ["axial", "coronal", "sagittal", "from the front"];
    const parts = names.map((name, n) => {
      const part = make("div", { data: { name } });
      part.style.backgroundPositionX = `${(100 * n) / 3}%`;
      return part;
    });
    const put = (url) => parts.forEach((part) => (part.style.backgroundImage = `url("${url}")`));
    const small = pictureOf(i);
    if (small) put(small);
    const large = make("img", {});
    large.addEventListener("load", () => put(large.src));
    if (!data.hasLargePictures) large.src = beside(i, "picture.webp"); // where the page lies in the folder of its run
    return make("div", { className: "tiles" }, parts);
  };
  const verdict = (i) =>
    make("div", { className: "verdict" }, [
      ...[["accept", "✓ Accept"], ["reject", "✕ Reject"]].map(([decision, textContent]) => {
        const pressed = data.decisions[i] === decision;
        const button = make("button", { type: "button", textContent, data: { decision }, "aria-pressed": pressed });
        button.addEventListener("click", () => judge(pressed ? null : decision));
        return button;
      }),
    ]);
  const noteField = (i) => {
    const field = make("textarea", { id: "note", placeholder: "Note", value: data.notes[i] ?? "", maxLength: 2000 });
    field.addEventListener("change", () => {
      decide(i, data.decisions[i], field.value);
      drawRows(true);
    });
    return field;
  };
  const table = (i) => {
    const titles = ["", "ml", "g", data.modalities[i] === "CT" ? "HU" : "mean", "agree", "usual"];
    const rows = structures.map((one, s) => {
      const volume = make("td", { textContent: figure(data.volumes[s][i], 1), className: isOutlier(i, s) ? "outlier" : "" });
      const cells = [one.isBlood ? "" : figure(data.masses[s][i]), figure(data.intensities[s][i]), percent(data.byStructure[s][i])];
      return make("tr", {}, [
        make("td", {}, [dot(one), one.name]),
        volume,
        ...[...cells, one.usual.join("–")].map((textContent) => make("td", { textContent })),
      ]);
    });
    return make("table", {}, [make("tr", {}, titles.map((textContent) => make("th", { textContent }))), ...rows]);
  };
  const warningList = (i) =>
    make("ul", {}, data.warnings[i].map(([code, text]) => {
      const { severity, structure } = data.codes[code];
      return make("li", { className: severity, textContent: (structure ? `${structure}: ` : "") + data.texts[text] });
    }));
  const judge = (decision) => {
    const i = selected;
    decide(i, decision, byId("note")?.value ?? data.notes[i]);
    const position = shown.indexOf(i);
    if (wanted.show === "all" && decision !== null) step(1);
    else {
      selected = wanted.show === "all" ? i : (shown[position + 1] ?? shown[position - 1] ?? null);
      apply();
    }
  };
  const showProgress = () => {
    const done = data.states.reduce((sum, state) => sum + (state === "done"), 0);
    const decided = data.decisions.reduce((sum, decision) => sum + (decision !== null), 0);
    const [text, track] = byId("reviewed").children;
    text.textContent = `${decided.toLocaleString("en")} of ${done.toLocaleString("en")} reviewed`;
    track.firstChild.style.width = `${done ? (100 * decided) / done : 0}%`;
  };

  // ---- distributions: bars of all and of those shown, outliers as points; dragging chooses a range ----

  const BINS = 48;
  const WIDTH = 240;
  const HEIGHT = 58;
  const plots = structures.map((one, s) => {
    const known = data.volumes[s].filter((volume) => volume !== null && volume > 0).sort((a, b) => a - b);
    const high = known.length ? known[known.length - 1] * 1.02 : 1;
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    svg.setAttribute("aria-label", `Volumes of the ${one.name}`);
    const median = known.length ? known[known.length >> 1] : null;
    const box = make("div", { className: "plot", data: { key: one.key } }, [
      make("h2", {}, [dot(one), make("span", { textContent: many ? one.abbreviation : one.name, title: one.name }), make("small", { textContent: `${figure(median)} ml` })]),
      svg,
      make("footer", {}, [make("span", { textContent: "0" }), make("span", { textContent: `${figure(high)} ml` })]),
    ]);
    box.querySelector("small").title = "Median of all studies. Drag over the bars to choose a range, click to clear it.";
    box.style.setProperty("--colour", one.colour);
    byId("distributions").append(box);
    const place = (event) => {
      const { left, width } = svg.getBoundingClientRect();
      return (Math.min(Math.max((event.clientX - left) / width, 0), 1)) * high;
    };
    let from = null;
    svg.addEventListener("pointerdown", (event) => {
      from = place(event);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = place(event);
      if (Math.abs(to - from) < high / 100) wanted.ranges.delete(s);
      else wanted.ranges.set(s, [Math.min(from, to), Math.max(from, to)]);
      from = null;
      byId("structure").value = one.key;
      showRange();
      apply();
    });
    return { s, svg, box, high };
  });
  const counted = (s, high, which) => {
    const bins = new Array(BINS).fill(0);
    for (const i of which) {
      const volume = data.volumes[s][i];
      if (volume > 0) bins[Math.min(BINS - 1, Math.floor((volume / high) * BINS))]++;
    }
    return bins;
  };
  const everything = [...Array(count).keys()];
  const bars = (bins, most, className) => {
    const width = WIDTH / BINS;
    let path = "";
    bins.forEach((number, bin) => {
      if (!number) return;
      const height = Math.max(1.5, (number / most) * (HEIGHT - 10));
      path += `M${(bin * width + 0.5).toFixed(2)} ${HEIGHT - 8}v${-height.toFixed(2)}h${(width - 1).toFixed(2)}v${height.toFixed(2)}z`;
    });
    return shape("path", { d: path, class: className });
  };
  const drawDistributions = () => {
    for (const { s, svg, box, high } of plots) {
      const all = counted(s, high, everything);
      const most = Math.max(1, ...all);
      svg.replaceChildren();
      const range = wanted.ranges.get(s);
      box.classList.toggle("chosen", range !== undefined);
      if (range) {
        const [low, top] = range.map((volume) => (Math.min(volume, high) / high) * WIDTH);
        svg.append(shape("rect", { x: low, y: 0, width: Math.max(1, top - low), height: HEIGHT, class: "band" }));
      }
      svg.append(bars(all, most, "all"), bars(counted(s, high, shown), most, "some"));
      for (const i of everything) {
        if (!isOutlier(i, s)) continue;
        svg.append(shape("rect", { x: (data.volumes[s][i] / high) * WIDTH - 1.5, y: HEIGHT - 6, width: 3, height: 6, class: "out" }));
      }
    }
  };

  // ---- controls ----

  const names = [...new Map(data.codes.map((code) => [code.name, code]).filter(([, code]) => code.severity !== "info")).values()];
  const frequency = new Map();
  for (const list of data.warnings) {
    for (const name of new Set(list.map(([code]) => data.codes[code].name))) frequency.set(name, (frequency.get(name) ?? 0) + 1);
  }
  names.sort((a, b) => frequency.get(b.name) - frequency.get(a.name));
  byId("warning").append(
    make("option", { value: "", textContent: "any or none" }),
    ...names.map((code) => make("option", { value: code.name, textContent: `${code.title} (${frequency.get(code.name)})` })),
  );
  byId("structure").append(...structures.map((one) => make("option", { value: one.key, textContent: one.name })));
  const chosenStructure = () => structures.findIndex((one) => one.key === byId("structure").value);
  const showRange = () => {
    const range = wanted.ranges.get(chosenStructure());
    const text = (value) => (value === undefined || !Number.isFinite(value) || value < 0 ? "" : String(Math.round(value * 10) / 10));
    byId("least").value = text(range?.[0]);
    byId("most").value = text(range?.[1]);
  };
  const takeRange = () => {
    const [least, most] = [byId("least").value, byId("most").value];
    if (least === "" && most === "") wanted.ranges.delete(chosenStructure());
    else wanted.ranges.set(chosenStructure(), [least === "" ? -Infinity : Number(least), most === "" ? Infinity : Number(most)]);
    apply();
  };
  byId("structure").addEventListener("change", showRange);
  byId("least").addEventListener("input", takeRange);
  byId("most").addEventListener("input", takeRange);
  byId("warning").addEventListener("change", (event) => { wanted.warning = event.target.value; apply(); });
  byId("outliers").addEventListener("change", (event) => { wanted.outliers = event.target.checked; apply(); });
  byId("search").addEventListener("input", (event) => { wanted.text = event.target.value.trim().toLowerCase(); apply(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  const tabs = document.querySelectorAll(".tabs button");
  const showTab = (name) => {
    wanted.show = name;
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", tab.dataset.show === name));
  };
  const failures = data.states.reduce((sum, state) => sum + (state === "failed"), 0);
  if (failures) tabs[tabs.length - 1].append(` ${failures.toLocaleString("en")}`);
  tabs.forEach((tab) => tab.addEventListener("click", () => { showTab(tab.dataset.show); list.scrollTop = 0; apply(); }));
  byId("clear").addEventListener("click", () => {
    Object.assign(wanted, { warning: "", outliers: false, text: "" });
    wanted.ranges.clear();
    byId("filters").reset();
    showTab("all");
    apply();
  });
  byId("save").addEventListener("click", save);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const actions = {
      ArrowDown: () => step(1), ArrowUp: () => step(-1), j: () => step(1), k: () => step(-1),
      a: () => judge("accept"), r: () => judge("reject"), u: () => judge(null), n: () => byId("note")?.focus(),
      "/": () => byId("search").focus(),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  byId("facts").append(make("b", { textContent: `${count.toLocaleString("en")} studies` }), ` · ${data.facts}`);
  showSorting();
  showProgress();
  apply();
  document.body.dataset.ready = "yes";
})();
