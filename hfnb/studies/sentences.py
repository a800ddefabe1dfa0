"""Sentences for synthetic speech, drawn from a small grammar that uses every phone of English."""

import numpy as np

WORDS = {
    "name": "Mary|George|Roy|Judith|Thelma|Hugh|Charles|Joyce|Yvonne|Ruth|Zachary|Beth|Owen|Theo|Sheila",
    "person": "teacher|boy|old cook|young girl|fisherman|engineer|neighbor|judge|author|pilot|nurse|thief",
    "adjective": "yellow|heavy|usual|smooth|thin|noisy|beige|good|huge|rare|cheap|azure|quiet|broken|raw",
    "thing": "bottle|measure|book|treasure|garage|leather jacket|chair|button|river|garden|pencil|mirror|"
    "kitchen table|watch|engine|piano|letter|ladder|sugar bowl|cushion|oyster|bath|rug|house|vision|toy",
    "verb": "found|bought|carried|followed|noticed|pushed|wanted|watched|enjoyed|forgot|painted|gathered|"
    "measured|put away|breathed on|hid|brought|paid for|jumped over|thought about",
    "place": "near the harbor|under the bridge|at the corner|by the fireplace|in the south|along the shore|"
    "beyond the hill|on the judge's yacht|behind the church|in the city|across the road",
    "time": "yesterday|every Thursday|in July|before noon|at five|after the storm|once a year|last winter",
    "reason": "because it was cheap|although nobody asked|while the others slept|so that we could hear|"
    "if the weather allows it|until the music stopped|though her throat was sore|as the fog grew thicker",
}
PATTERNS = (
    "{name} {verb} the {adjective} {thing} {place}.",
    "The {person} {verb} a {thing} {time}, {reason}.",
    "{time}, the {adjective} {person} {verb} {name}'s {thing}.",
    "Why has the {person} {place} {verb} this {adjective} {thing}?",
    "The {thing} {place} is {adjective}, {reason}.",
    "{name} and the {person} {verb} their {adjective}, {adjective} {thing}.",
)
# Read by every synthetic speaker, as TIMIT's two dialect sentences are.
SHARED = (
    "Both boys thought the huge yellow bird was measuring good water near our house.",
    "Usually your father sings as he washes the dark leather chair in the garage.",
)


def sentence(random: np.random.Generator) -> str:
    """Return a sentence drawn from the grammar.

    >>> sentence(np.random.default_rng(0)) == sentence(np.random.default_rng(0))
    True
    """
    text = PATTERNS[random.integers(len(PATTERNS))]
    for kind, words in WORDS.items():
        choices = words.split("|")
        while "{" + kind + "}" in text:
            text = text.replace("{" + kind + "}", choices[random.integers(len(choices))], 1)
    return text[0].upper() + text[1:]
