// How results of the search are ordered: as Sphinx does, but pages whose own title has the word come first, and
// pages that report measurements last.
var Scorer = {
  score: ([page, title, anchor, , score]) => {
    const query = new URLSearchParams(location.search).get("q").trim().toLowerCase();
    const isTitle = query && !anchor && title.toLowerCase().includes(query);
    return score + (isTitle ? 20 : 0) - (["benchmarks", "proofs"].includes(page) ? 100 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
