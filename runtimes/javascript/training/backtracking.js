// rounds: 12
(() => {
  function place(n, row, columns, left, right) {
    if (row === n) return 1;
    let found = 0;
    for (let c = 0; c < n; c++) {
      if (columns.has(c) || left.has(row + c) || right.has(row - c)) continue;
      columns.add(c); left.add(row + c); right.add(row - c);
      found += place(n, row + 1, columns, left, right);
      columns.delete(c); left.delete(row + c); right.delete(row - c);
    }
    return found;
  }
  return place(6, 0, new Set(), new Set(), new Set());
})()
