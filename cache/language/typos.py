"""Slips of the finger: one word that exists against one that does not. Two that exist are two words."""

from __future__ import annotations

from functools import lru_cache

from cache.language.lexicon import Lexicon

_RARE_TEXT = (
    "mole mule beet aunt newt stoat hake perch tench whelk ileum ilium ureter urethra femur humerus ulna tibia fibula "
    "perineal peroneal dysphagia dysphasia aphasia dysplasia dystrophy palate palette pallet mucus mucous callus "
    "callous silicon silicone carat karat caret carrot stationary stationery complement compliment principal "
    "principle moray morel quail snail shrew hare heron herring egret ferret gerbil lemur lemon lynx otter oyster "
    "mussel muscle clam bison bassoon bassist leek leak leech lentil lintel lint linen linnet parsley parsnip radish "
    "relish turnip cumin clove cloves thyme basil sorrel fennel kennel funnel tunnel quinoa papaya plantain peony "
    "pansy poppy puppy tulip turbot turban tarot parrot ferrule ferule fungus fungi algae larva larvae pupa mite moth "
    "louse lice flea fly wasp hornet bonnet sonnet tonsil tinsel pencil stencil retina rectum sternum septum vertebra "
    "vertebrae thyroid steroid asteroid hemorrhoid meiosis mitosis miosis stenosis sclerosis cirrhosis psoriasis "
    "scoliosis kyphosis thrombosis necrosis nephrosis neurosis nephritis neuritis arthritis arteritis bronchitis "
    "colitis cystitis gastritis hepatitis phlebitis rhinitis sinusitis cholera malaria anemia leukemia uremia "
    "ischemia glycemia apnea dyspnea edema eczema emphysema enema uterus cervix cervical pelvic peptic septic "
    "antiseptic aseptic anorexia apraxia ataxia alexia dyslexia dyspraxia insulin inulin keratin creatine creatinine "
    "carnitine carotene casein caffeine codeine cocaine heparin warfarin statin biotin niacin penicillin amoxicillin "
    "ampicillin thiamine theanine tyrosine tryptophan lysine leucine glycine glycerin guanine guanidine cytosine "
    "adenine adenosine alanine aniline ketone acetone alkane alkene alkyne methanol ethanol ether ester estrogen "
    "androgen toner tuner tenor tenner censor censer sensor cellar seller sailor tailor trailer trawler tiller teller "
    "miter metre meter litre liter latter ladder lather leather feather heather weather whether tether altar alter "
    "canvas canvass desert dessert hanger hangar lesson lessen moral morale personal personnel prophet profit rapid "
    "rabid rabbi rabbit ration ratio rotation potion lotion motion notion affect effect accept except adapt adopt "
    "adept allusion illusion elusion eminent imminent immanent eligible legible ingenious ingenuous loath loathe lose "
    "loose proceed precede prescribe proscribe perspective prospective veracious voracious venal venial vane vein "
    "vain wary weary wean ween beech beach bleach breach broach brooch roach coach poach pouch couch crouch slouch "
    "grouse mousse moose noose nose posse possum "
)
_RARE = frozenset(_RARE_TEXT.split())
"""Words that no list of frequent ones has, each one letter from another."""
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"))
_SHORTEST_BASE = 3
_LONG = 8
_LONG_ENOUGH = 6


@lru_cache(maxsize=65536)
def _base_listed(word: str) -> bool:
    return word in _RARE or any(word.removesuffix(end) + more in _RARE for end, more in _ENDINGS if word.endswith(end))


def listed(word: str, words: Lexicon) -> bool:
    """A word that exists, or an English inflection of one."""
    if word in words.known:
        return True
    if words.language != "en":
        return False
    if _base_listed(word):
        return True
    return any(
        len(word) - len(end) >= _SHORTEST_BASE and word.removesuffix(end) + more in words.known
        for end, more in _ENDINGS
        if word.endswith(end)
    )


def slip(p: str, q: str, words: Lexicon, named: bool) -> bool:
    """One slip in a word of four letters or more, two in nine; exactly one of the two exists.

    Of two in no list neither is known to be the slip: dysphagia and dysphasia are two complaints. Only letters that
    changed places or were typed twice are never another word there.
    """
    if min(len(p), len(q)) < 4 or abs(len(p) - len(q)) > 2 or p[0] != q[0]:
        return False
    if not (p.isalpha() and q.isalpha()):
        return False
    exists_p, exists_q = listed(p, words), listed(q, words)
    if exists_p == exists_q:
        return not exists_p and not named and _stumble(p, q)
    if words.language != "en" and not _likely(p, q):
        return False
    allowed = 2 if max(len(p), len(q)) >= 9 and not named else 1
    return distance(p, q, allowed) <= allowed


def _stumble(p: str, q: str) -> bool:
    """Two neighbours changed places inside a long word, or one letter came twice."""
    short, long = sorted((p, q), key=len)
    if len(short) < _LONG_ENOUGH:
        return False
    at = next((place for place, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    if len(p) == len(q):
        return p[at : at + 2] == q[at : at + 2][::-1] and p[at + 2 :] == q[at + 2 :]
    return len(long) == len(short) + 1 and short[at:] == long[at + 1 :] and long[at] == long[at - 1]


def _likely(p: str, q: str) -> bool:
    """Where few words are listed: no other ending, and no other letter in a short word, as in Leder and Leber."""
    if p[:-1] in (q, q[:-1]) or q[:-1] == p:
        return False
    return len(p) != len(q) or sorted(p) == sorted(q) or min(len(p), len(q)) >= _LONG


def distance(p: str, q: str, limit: int) -> int:
    """Damerau-Levenshtein distance (adjacent transpositions), or more than ``limit`` as soon as it is sure."""
    before: list[int] = []
    row = list(range(len(q) + 1))
    for i, left in enumerate(p, start=1):
        current = [i]
        for j, right in enumerate(q, start=1):
            cost = min(row[j] + 1, current[j - 1] + 1, row[j - 1] + (left != right))
            if i > 1 and j > 1 and left == q[j - 2] and p[i - 2] == right:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        if min(current) > limit:
            return limit + 1
        before, row = row, current
    return row[-1]
