"""Words whose forms `make_skills.py` asks for: common ones, and only those with one usual form (or a few, all accepted)."""

VERBS = """
have do say get make go know take see come think give find tell leave keep let begin show hear run hold bring write
sit stand lose pay meet lead understand speak read spend grow win send build fall cut buy bite blow break burst catch
choose cling creep deal dig draw drink drive eat feed fight flee fling fly forbid forget forgive freeze grind hide
hit hurt kneel lend mean ride rise seek sell shake shoot shrink shut sing sink sleep slide spin split spread spring
steal stick sting strike swear sweep swim swing teach tear throw wear weep arise bend bleed cast cost cling
stride undergo withdraw withstand feel become bind breed
want use ask work seem try call turn start play move live believe happen provide include continue set learn change
watch follow stop create allow add open walk offer remember love consider appear wait serve die expect stay reach kill
remain suggest raise pass require report decide pull explain carry develop hope drop receive agree support join cover
visit travel study cry dry marry worry hurry copy reply apply enjoy destroy plan jog hug beg rub grab clap tap chat
admit prefer refer occur commit permit bake dance smile close save race taste wash push fix mix box kiss guess miss
dress cross finish publish polish crash brush rush fish cook clean wash help jump kick laugh listen look need paint
park pick plant point pour print promise record rain return roll sail search shout sign smell sound talk thank
touch train trust type wish zip bark boil bounce camp chase climb count crawl dare dream drag fade fetch film float
fold gather glow guard hunt iron itch juggle land lock march melt mend nod obey order pack peel pinch pray
press question remove repair rescue rob rule scream shave share shiver skip slip snow spray stare stir suffer sway
tie tickle trace trap trim tug twist unlock vanish wave whisper wink wonder yawn
""".split()

NOUNS = """
cat dog box fox bus kiss church watch brush dish city baby story party lady country family army berry fly day key boy
monkey toy knife wife life leaf wolf half shelf thief calf loaf hero potato tomato echo photo piano radio video man
woman child foot tooth goose mouse horse house rose nose face place page bridge edge judge prize size maze quiz class
glass boss loss cross tax crash bush lash bench lunch match patch stitch witch ditch coach peach beach speech torch
porch branch ranch trench book table chair window door tree river lake hill road car train plane ship hand eye ear arm
leg head back neck finger friend teacher student doctor nurse farmer king queen prince princess actress waitress
address dress mattress hobby penny puppy kitty pony copy body study duty beauty county enemy factory gallery grocery
injury jury library memory mystery battery bakery cherry daisy diary dairy fairy ferry
apple orange egg umbrella owl ant elephant island engine ocean office uncle aunt artist author actor airport arrow
army animal answer article avenue eagle elbow envelope idea inch insect insult oven olive onion organ igloo
lemon melon carrot pepper spoon fork cup plate bottle basket blanket pillow candle lamp clock mirror carpet curtain
garden flower forest mountain valley desert village street corner market shop hotel museum theatre school college
hospital bank station harbour castle palace temple tower wall roof floor kitchen bedroom bathroom garage fence gate
jacket shirt skirt shoe sock glove hat scarf button pocket zipper ring necklace pencil pen eraser ruler notebook letter
stamp newspaper magazine poem song drum guitar violin trumpet ball bat racket goal team player coach referee ticket
rabbit tiger lion bear camel donkey cow pig hen duck turkey eagle sparrow snake lizard frog spider bee wasp butterfly
""".split()

ADJECTIVES = """
big small tall short fast slow hot cold warm cool old young new long wide thin fat wet dry happy sad busy lazy easy
heavy funny pretty ugly noisy angry hungry thirsty dirty clean dark light bright loud quiet soft hard strong weak rich
poor cheap deep high low near late early large nice safe brave wise rude pale sharp sweet sour rough smooth thick
dense calm mild kind proud fair plain tight loose firm flat full lucky sunny windy rainy cloudy foggy tiny shiny silly
crazy healthy wealthy hairy juicy salty spicy tasty dusty rusty muddy grey red green brown white black fresh great
grand fine bald blunt bold broad clear close coarse crisp cute damp dull dumb faint fierce fond grim gross harsh keen
lean meek neat odd pink quick rare raw ripe sane scarce shy slim sick slight sly smart sore steep stern stiff strange
strict stout swift tame tender tense tough vast warm wild young bumpy bloody chilly chubby clumsy cosy creamy
creepy curly dizzy fancy filthy fluffy fuzzy gloomy grumpy guilty handy icy itchy jolly mighty messy misty moody nasty
needy nosy risky rocky rosy sandy scary shaggy shady shaky skinny sleepy slimy smoky snowy sorry speedy steady sticky
stormy sweaty tidy tricky weary witty worthy yummy bossy bulky crispy crunchy dreamy empty flashy flimsy greasy greedy
hasty holy sleek sincere remote polite humble noble simple gentle narrow shallow mellow clever feeble
""".split()

# Other forms that are as usual as the first one, by word and Penn Treebank tag.
ALSO = {
    ("dream", "VBD"): ("dreamt",),
    ("forbid", "VBD"): ("forbad",),
    ("get", "VBN"): ("got",),
    ("kneel", "VBD"): ("kneeled",),
    ("learn", "VBD"): ("learnt",),
    ("shrink", "VBD"): ("shrunk",),
    ("smell", "VBD"): ("smelt",),
    ("spring", "VBD"): ("sprung",),
    ("travel", "VBD"): ("travelled",),
    ("travel", "VBG"): ("travelling",),
    ("old", "JJR"): ("elder",),
    ("old", "JJS"): ("eldest",),
    ("bus", "NNS"): ("busses",),
    ("echo", "NNS"): ("echos",),
    ("penny", "NNS"): ("pence",),
    ("roof", "NNS"): ("rooves",),
    ("scarf", "NNS"): ("scarfs",),
}
# Format rows about words: a question and pairs of a word and its answer.
FORMAT_WORDS = {
    "opposite": (
        "What is the opposite of {}?",
        "hot cold, up down, left right, day night, rich poor, before after, early late",
    ),
    "ordinal": (
        "What is the ordinal of {}?",
        "one first, two second, five fifth, nine ninth, twelve twelfth, six sixth, ten tenth",
    ),
    "woman": (
        "What is the feminine of {}?",
        "actor actress, king queen, uncle aunt, waiter waitress, duke duchess, hero heroine, son daughter",
    ),
}
