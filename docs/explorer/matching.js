/** The minimum-cost one-to-one assignment, `pivq_jax.matching.match` for one problem. */

/**
 * Assigns a column of its own to each row such that the total cost is minimal.
 *
 * Shortest augmenting paths with a dense Dijkstra search (Jonker and Volgenant 1987; for fewer rows
 * than columns, Crouse 2016), in float64. Of several optimal assignments it finds one, not
 * necessarily the one that Python finds.
 *
 * @param {ArrayLike<number>} cost - [rows, columns], row by row; Infinity forbids a pair.
 * @param {number} rows - at most `columns`.
 * @param {number} columns
 * @returns {Int32Array} the column of each row.
 * @throws {RangeError} if there are more rows than columns, a cost is NaN or -Infinity, or every
 *     assignment contains a forbidden pair.
 */
export function match(cost, rows, columns) {
  if (rows > columns || cost.length !== rows * columns) {
    throw new RangeError(`${cost.length} costs for ${rows} rows and ${columns} columns`);
  }
  if (!Array.prototype.every.call(cost, (value) => value > -Infinity)) {
    throw new RangeError("a cost is NaN or -Infinity");
  }
  const rowOf = new Int32Array(columns).fill(-1);
  const columnOf = new Int32Array(rows).fill(-1);
  const rowPrices = new Float64Array(rows);
  const prices = new Float64Array(columns);
  const distance = new Float64Array(columns);
  const before = new Int32Array(columns); // the row from which a column was reached
  const done = new Uint8Array(columns);

  for (let start = 0; start < rows; start++) {
    distance.fill(Infinity);
    done.fill(0);
    const path = []; // the columns done, in order
    let row = start;
    let level = 0;
    let column = -1;
    let floor = -Infinity; // rounding must not move a distance below those of the columns done
    do {
      const base = level - rowPrices[row];
      column = -1;
      let least = Infinity;
      for (let other = 0; other < columns; other++) {
        if (done[other]) continue;
        const onward = Math.max(floor, base + cost[row * columns + other] - prices[other]);
        if (onward < distance[other]) {
          distance[other] = onward;
          before[other] = row;
        }
        // Of equally near columns a free one ends the search.
        if (distance[other] < least || (distance[other] === least && least < Infinity && rowOf[other] < 0)) {
          least = distance[other];
          column = other;
        }
      }
      if (column < 0) throw new RangeError("every assignment contains a forbidden pair");
      level = floor = least;
      done[column] = 1;
      path.push(column);
      row = rowOf[column];
    } while (row >= 0);

    rowPrices[start] += level;
    for (const reached of path.slice(0, -1)) {
      rowPrices[rowOf[reached]] += level - distance[reached];
      prices[reached] -= level - distance[reached];
    }
    for (let end = column; end >= 0; ) {
      const owner = before[end];
      rowOf[end] = owner;
      [columnOf[owner], end] = [end, columnOf[owner]];
    }
  }
  return columnOf;
}
