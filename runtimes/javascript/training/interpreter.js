// rounds: 10
(() => {
  const program = '++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.>---.+++++++..+++.>>.<-.<.+++.------.--------.';
  const jumps = {}, open = [];
  for (let i = 0; i < program.length; i++) {
    if (program[i] === '[') open.push(i);
    else if (program[i] === ']') { const j = open.pop(); jumps[i] = j; jumps[j] = i; }
  }
  const tape = new Array(64).fill(0);
  let at = 0, out = '';
  for (let pc = 0; pc < program.length; pc++) {
    switch (program[pc]) {
      case '>': at++; break;
      case '<': at--; break;
      case '+': tape[at] = (tape[at] + 1) & 255; break;
      case '-': tape[at] = (tape[at] - 1) & 255; break;
      case '.': out += String.fromCharCode(tape[at]); break;
      case '[': if (!tape[at]) pc = jumps[pc]; break;
      case ']': if (tape[at]) pc = jumps[pc]; break;
    }
  }
  const hanoi = (n, a, b, c) => (n === 0 ? 0 : hanoi(n - 1, a, c, b) + 1 + hanoi(n - 1, c, b, a));
  let longest = 0;
  for (let i = 1; i < 300; i++) { let n = i, k = 0; while (n !== 1) { n = n % 2 ? 3 * n + 1 : n / 2; k++; } if (k > longest) longest = k; }
  let inside = 0;
  for (let y = 0; y < 16; y++) for (let x = 0; x < 24; x++) {
    let zr = 0, zi = 0, i = 0;
    const cr = x / 8 - 2, ci = y / 8 - 1;
    while (i < 30 && zr * zr + zi * zi < 4) { const t = zr * zr - zi * zi + cr; zi = 2 * zr * zi + ci; zr = t; i++; }
    if (i === 30) inside++;
  }
  return [out, hanoi(9, 1, 2, 3), longest, inside];
})()
