// Positions of the beams of a search: a column per level, without crossing lines.

/**
 * Place values in order, at least `gap` apart, as near to the wanted places as possible (least squares), in
 * [0, height]. `weights` say how much each wanted place counts.
 */
export function spread(wanted, weights, gap, height) {
  // With y[i] = z[i] + i * gap, the z must not decrease: pool adjacent violators.
  const blocks = [];
  wanted.forEach((place, number) => {
    let block = { sum: (place - number * gap) * weights[number], weight: weights[number], count: 1 };
    while (blocks.length && blocks.at(-1).sum / blocks.at(-1).weight > block.sum / block.weight) {
      const before = blocks.pop();
      block = { sum: before.sum + block.sum, weight: before.weight + block.weight, count: before.count + block.count };
    }
    blocks.push(block);
  });
  const last = height - (wanted.length - 1) * gap;
  const shifted = blocks.flatMap(({ sum, weight, count }) => Array(count).fill(sum / weight));
  return shifted.map((place, number) => Math.min(Math.max(place, 0), Math.max(last, 0)) + number * gap);
}

/**
 * The vertical positions of the beams of each level.
 * The last level is spread evenly. A beam of another level is beside the middle of the beams that continue it; a beam
 * that none continues is between its neighbours.
 */
export function heights(levels, height) {
  const places = [];
  for (let number = levels.length - 1; number >= 0; number -= 1) {
    const { beams } = levels[number];
    const even = beams.map((_, row) => ((row + 0.5) / beams.length) * height);
    if (number === levels.length - 1) {
      places[number] = even;
      continue;
    }
    const children = beams.map(() => []);
    levels[number + 1].beams.forEach((beam, row) => children[beam.parent]?.push(places[number + 1][row]));
    const middles = children.map((own) => (own.length ? (own[0] + own.at(-1)) / 2 : null));
    const gap = (0.7 * height) / Math.max(beams.length, 1);
    places[number] = spread(filledIn(middles, even), middles.map((middle) => (middle === null ? 0.05 : 1)), gap, height);
  }
  return places;
}

/** Fill in the places of beams that nothing continues: at equal distances between those beside them. */
function filledIn(places, even) {
  const result = [...places];
  for (let start = 0; start < result.length; start += 1) {
    if (result[start] !== null) continue;
    let stop = start;
    while (stop < places.length && places[stop] === null) stop += 1;
    const before = start ? result[start - 1] : null;
    const after = stop < places.length ? places[stop] : null;
    for (let row = start; row < stop; row += 1) {
      const share = (row - start + 1) / (stop - start + 1);
      result[row] = before === null || after === null ? even[row] : before + (after - before) * share;
    }
    start = stop - 1;
  }
  return result;
}

/** Move labels apart, so that they do not overlap: places at least `gap` apart, in the order of `wanted`. */
export function labelPlaces(wanted, gap, height) {
  return spread(wanted, wanted.map(() => 1), gap, height);
}
