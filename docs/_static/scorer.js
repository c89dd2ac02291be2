// How results of the search are ordered: as Sphinx does, with pages that report measurements behind the others.
var Scorer = {
  score: ([page, , , , score]) => (["benchmarks", "proofs"].includes(page) ? score - 100 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
