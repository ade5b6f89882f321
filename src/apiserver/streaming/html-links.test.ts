import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HtmlLinks } from './html-links.ts';

const rewrite = (url: string): string => (url.startsWith('/') ? `/proxy${url}` : url);

function through(chunks: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const links = new HtmlLinks(rewrite);
    let out = '';
    links.on('data', (chunk: Buffer) => (out += chunk.toString('latin1')));
    links.on('end', () => resolve(out)).on('error', reject);
    for (const chunk of chunks) links.write(Buffer.from(chunk, 'latin1'));
    links.end();
  });
}

const PAGE = `<!DOCTYPE html><!-- <a href="/comment"> --><html><head><link href='/style.css' rel=stylesheet>
<script src="/app.js">if (a < b && c > d) document.write('<a href="/not">');</script><style>a{background:url("/no")}</style></head>
<body title="a > b" background=/b.png><a class="x" HREF = "/one">1</a> it's <a href="two">2</a><a href="http://elsewhere/">3</a>
<img alt='say "<b>"' src=/i.png><form action="/do?a=1&b=2"></form><p data-href="/keep">5 < 6</p><br/></body></html>`;
const EXPECTED = PAGE.replace("'/style.css'", "'/proxy/style.css'")
  .replace('"/app.js"', '"/proxy/app.js"')
  .replace('=/b.png', '=/proxy/b.png')
  .replace('"/one"', '"/proxy/one"')
  .replace('=/i.png', '=/proxy/i.png')
  .replace('"/do?', '"/proxy/do?');

test('links to the root lead through the proxy; scripts, styles, comments and other attributes stay', async () => {
  assert.equal(await through([PAGE]), EXPECTED);
  assert.equal(await through([...PAGE]), EXPECTED);
});

test('wherever a page is cut, the same comes out', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(PAGE.length), { maxLength: 6 }), async cuts => {
      const at = [0, ...cuts.toSorted((a, b) => a - b), PAGE.length];
      assert.equal(await through(at.slice(1).map((end, index) => PAGE.slice(at[index], end))), EXPECTED);
    }),
    { numRuns: 50 },
  );
});

test('what is no page comes out as it went in', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: fc.constantFrom('<', '>', '"', "'", '=', '!', '-', '/', 'a', ' ', '\xff') })),
      async chunks => {
        assert.equal(await through(chunks), chunks.join(''));
      },
    ),
    { numRuns: 200 },
  );
  const long = `<a href="${'/x'.repeat(40_000)}`;
  assert.equal(await through([long]), long);
});
