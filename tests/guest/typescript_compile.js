// Compiles one TypeScript snippet with the real compiler.
//
// Usage: node typescript_compile.js TYPESCRIPT, the folder of the compiler's package; the snippet comes on stdin. Prints
// JSON: `code` and, line by line, what `lines` of it came from; or the place of the first error of syntax.
"use strict";

const fs = require("node:fs");
const { SourceMap } = require("node:module");

const ts = require(process.argv[2]);
const source = fs.readFileSync(0, "utf8");

const { outputText, sourceMapText, diagnostics } = ts.transpileModule(source, {
  fileName: "snippet.ts",
  reportDiagnostics: true,
  compilerOptions: {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.Preserve,
    moduleDetection: ts.ModuleDetectionKind.Legacy,
    useDefineForClassFields: true,
    sourceMap: true,
    removeComments: false,
  },
});

function describe() {
  const [first] = diagnostics;
  if (first) {
    const { line } = ts.getLineAndCharacterOfPosition(ts.createSourceFile("snippet.ts", source, 99), first.start);
    return { error: line + 1, message: ts.flattenDiagnosticMessageText(first.messageText, "\n") };
  }
  const map = new SourceMap(JSON.parse(sourceMapText));
  const code = outputText.replace(/\/\/# sourceMappingURL=.*\n?$/, "").replace(/^export \{\};\n/m, "");
  const lines = code.split("\n").map((text, line) => {
    const places = [];
    for (let column = 0; column <= text.length; column++) places.push((map.findEntry(line, column).originalLine ?? -1) + 1);
    return places;
  });
  return { code, lines };
}

process.stdout.write(JSON.stringify(describe()));
