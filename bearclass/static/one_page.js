// A model in a page: the picture is fitted to the network's square as Pillow does it, so that the answer is the same.
'use strict'

const facts = JSON.parse(document.getElementById('facts').textContent)
const $ = id => document.getElementById(id)

// ---- what the page carries

function bytes(base64) {   // by hand: `Uint8Array.from` with a function takes ten times as long
  const text = atob(base64), out = new Uint8Array(text.length)
  for (let i = 0; i < out.length; i++) out[i] = text.charCodeAt(i)
  return out
}

async function carried(id) {   // base64 of gzip -> bytes
  const node = $(id)
  const packed = bytes(node.textContent)
  node.remove()
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Response(stream).arrayBuffer()
}

function halves(buffer) {   // 16-bit floats -> 32-bit floats
  const from = new Uint16Array(buffer), to = new Float32Array(from.length)
  for (let i = 0; i < from.length; i++) {
    const sign = from[i] & 0x8000 ? -1 : 1, exponent = from[i] >> 10 & 31, part = from[i] & 1023
    to[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -24 * part)
  }
  return to
}

// ---- from a file to the network's square

const roundEven = x => { const r = Math.round(x); return Math.abs(x % 1) === .5 && r % 2 ? r - 1 : r }

function plan(size, to) {   // for each new pixel: where its weights begin, and the weights, as Pillow's bilinear has them
  const scale = size / to, support = Math.max(scale, 1), rows = []
  for (let i = 0; i < to; i++) {
    const centre = (i + .5) * scale
    const from = Math.max(0, Math.trunc(centre - support + .5)), end = Math.min(size, Math.trunc(centre + support + .5))
    const w = []
    for (let x = from; x < end; x++) w.push(Math.max(0, 1 - Math.abs((x - centre + .5) / support)))
    const sum = w.reduce((a, b) => a + b, 0)
    rows.push({from, w: Int32Array.from(w, v => Math.floor(v / sum * (1 << 22) + .5))})
  }
  return rows
}

const byte = sum => Math.min(255, Math.max(0, sum + (1 << 21) >> 22))

function narrower(data, width, height, rows) {   // RGBA rows -> RGB rows of the new width; transparency lies over white
  const out = new Uint8Array(height * rows.length * 3)
  const white = new Uint8Array(width * 3)
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const p = (y * width + x) * 4, a = data[p + 3]
      for (let c = 0; c < 3; c++) white[x * 3 + c] = a === 255 ? data[p + c] : Math.round((data[p + c] * a + 255 * (255 - a)) / 255)
    }
    for (const {from, w} of rows) {
      for (let c = 0; c < 3; c++) {
        let sum = 0
        for (let k = 0; k < w.length; k++) sum += white[(from + k) * 3 + c] * w[k]
        out[o++] = byte(sum)
      }
    }
  }
  return out
}

function lower(data, width, rows) {   // RGB rows -> fewer of them
  const out = new Uint8Array(rows.length * width * 3), line = width * 3
  rows.forEach(({from, w}, y) => {
    for (let i = 0; i < line; i++) {
      let sum = 0
      for (let k = 0; k < w.length; k++) sum += data[(from + k) * line + i] * w[k]
      out[y * line + i] = byte(sum)
    }
  })
  return out
}

function resized(bitmap, [left, top, width, height], to) {   // a box of the picture, in new size [w, h], as RGB
  const strip = 256, canvas = new OffscreenCanvas(width, Math.min(strip, height))
  const context = canvas.getContext('2d', {willReadFrequently: true})
  const across = plan(width, to[0]), narrow = new Uint8Array(height * to[0] * 3)
  for (let y = 0; y < height; y += strip) {
    const rows = Math.min(strip, height - y)
    context.clearRect(0, 0, width, strip)
    context.drawImage(bitmap, left, top + y, width, rows, 0, 0, width, rows)
    narrow.set(narrower(context.getImageData(0, 0, width, rows).data, width, rows, across), y * to[0] * 3)
  }
  return lower(narrow, to[0], plan(height, to[1]))
}

function fitted(bitmap) {   // RGB of facts.size x facts.size
  const {size, method, zoom, around} = facts, w = bitmap.width, h = bitmap.height
  if (method === 'crop') {
    const shorter = Math.min(w, h)   // where something is put around, it is fastai's own sum, with its rounding
    const side = Math.max(1, Math.trunc(around ? shorter / size * size : shorter / zoom))
    return resized(bitmap, [Math.floor((w - side) / 2), Math.floor((h - side) / 2), side, side], [size, size])
  }
  const scale = size / Math.max(w, h)
  const to = method === 'squish' ? [roundEven(size * zoom), roundEven(size * zoom)]
    : [Math.max(1, roundEven(w * scale)), Math.max(1, roundEven(h * scale))]
  const whole = resized(bitmap, [0, 0, w, h], to), out = new Uint8Array(size * size * 3)
  const dx = Math.floor((size - to[0]) / 2), dy = Math.floor((size - to[1]) / 2)   // below zero where edges are cut
  for (let y = Math.max(0, dy); y < Math.min(size, dy + to[1]); y++) {
    for (let x = Math.max(0, dx); x < Math.min(size, dx + to[0]); x++) {
      for (let c = 0; c < 3; c++) out[(y * size + x) * 3 + c] = whole[((y - dy) * to[0] + x - dx) * 3 + c]
    }
  }
  return out
}

async function square(blob) {
  const upright = {imageOrientation: 'from-image', premultiplyAlpha: 'none', colorSpaceConversion: 'none'}
  const bitmap = await createImageBitmap(blob, upright)
  if (bitmap.width * bitmap.height > facts.maxPixels) throw new Error('too large')
  const rgb = fitted(bitmap), n = facts.size ** 2, x = new Float32Array(3 * n)
  bitmap.close()
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < n; i++) x[c * n + i] = (Math.fround(rgb[i * 3 + c] / 255) - facts.mean[c]) / facts.std[c]
  }
  return x
}

// ---- the answer

let ort, session, bank

async function answer(blob) {
  const x = new ort.Tensor('float32', await square(blob), [1, 3, facts.size, facts.size])
  const out = await session.run({[session.inputNames[0]]: x})
  const z = Array.from(out.logits.data, v => v / facts.temperature), top = Math.max(...z)
  const e = z.map(v => Math.exp(v - top)), sum = e.reduce((a, b) => a + b, 0)
  return {probs: e.map(v => v / sum), unknown: bank && out.features ? distance(out.features.data) > facts.threshold : false}
}

function distance(features) {   // one minus the mean cosine to the ten nearest training pictures
  const length = Math.hypot(...features) || 1e-12, d = features.length, cosines = []
  for (let r = 0; r < bank.length; r += d) {
    let sum = 0
    for (let i = 0; i < d; i++) sum += bank[r + i] * features[i]
    cosines.push(sum / length)
  }
  const near = cosines.sort((a, b) => b - a).slice(0, 10)
  return 1 - near.reduce((a, b) => a + b, 0) / near.length
}

function inWords(probs, unknown) {
  const order = probs.map((p, i) => i).sort((a, b) => probs[b] - probs[a] || a - b), [first, second] = order
  if (unknown) return ['The nearest of what it knows', facts.vocab[first], order]
  if (probs[first] >= facts.likely) return ['Most likely', facts.vocab[first], order]
  if (probs[first] >= facts.probable) return ['Probably', facts.vocab[first], order]
  return ['Not sure, perhaps', `${facts.vocab[first]} or ${facts.vocab[second]}`, order]
}

const percent = p => p < .01 ? '<1%' : p > .99 ? '>99%' : `${Math.round(p * 100)}%`

function element(name, classes, text) {
  const node = document.createElement(name)
  node.className = classes
  if (text !== undefined) node.textContent = text
  return node
}

function show({probs, unknown}) {
  const [sure, label, order] = inWords(probs, unknown)
  const bars = element('ul', 'bc-bars')
  order.slice(0, 3).forEach((i, place) => {
    const bar = element('li', 'bc-bar'), number = element('data', 'bc-number', percent(probs[i]))
    const track = element('div', 'bc-track'), fill = element('div', place ? 'bc-fill' : 'bc-fill bc-first')
    number.value = probs[i]
    track.ariaHidden = 'true'
    fill.style.width = `${Math.max(probs[i], .004) * 100}%`
    track.append(fill)
    bar.append(element('span', 'bc-name', facts.vocab[i]), number, track)
    bars.append(bar)
  })
  const warning = unknown ? [element('div', 'bc-message', facts.unlike)] : []
  $('answer').replaceChildren(...warning, element('div', 'bc-sure', sure), element('div', 'bc-label', label), bars)
}

const say = text => $('answer').replaceChildren(element('div', 'bc-message', text))

async function look(file) {
  $('picture').replaceChildren()
  $('answer').replaceChildren(element('div', 'bc-busy', 'Looking …'))
  await new Promise(done => setTimeout(done))   // so that this is seen
  try {
    const said = await answer(file), image = element('img', '')
    image.src = URL.createObjectURL(file)
    image.alt = `Your picture, ${file.name}`
    image.onload = () => URL.revokeObjectURL(image.src)
    $('picture').replaceChildren(image)
    show(said)
  } catch (e) {
    say(e.message === 'too large' ? 'This picture has too many pixels. Make it smaller, and try again.'
      : `“${file.name}” is no picture that this browser can open. Save it as JPEG or PNG, and try again.`)
  }
}

async function start() {
  const [script, wasm, model] = await Promise.all(['runtime', 'wasm', 'model'].map(carried))
  const address = URL.createObjectURL(new Blob([script], {type: 'text/javascript'}))
  ort = await import(address)
  URL.revokeObjectURL(address)
  Object.assign(ort.env.wasm, {numThreads: 1, proxy: false, wasmBinary: wasm})
  session = await ort.InferenceSession.create(new Uint8Array(model), {executionProviders: ['wasm']})
  bank = $('bank') && halves(await carried('bank'))
  for (const {png, probs} of facts.golden) {   // the answers it gave when it was exported
    const said = await answer(new Blob([bytes(png)], {type: 'image/png'}))
    const off = Math.max(...said.probs.map((p, i) => Math.abs(p - probs[i])))
    if (!(off <= facts.tolerance)) throw new Error(`it answers otherwise here than where it was made (by ${off})`)
  }
  for (const input of inputs) input.disabled = false
  $('answer').replaceChildren()
  document.body.dataset.state = 'ready'
}

const inputs = document.querySelectorAll('input[type=file]')
for (const input of inputs) {
  input.addEventListener('click', () => { input.value = '' })   // so that the same file again is news
  input.addEventListener('change', () => { if (input.files[0]) look(input.files[0]) })
}
start().catch(e => {
  document.body.dataset.state = 'failed'
  say(`This browser cannot run the model: ${e.message}. A newer one may: it needs WebAssembly and DecompressionStream.`)
})
