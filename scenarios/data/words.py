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

# Adjectives whose adverb ends in -ly.
MANNERS = """
quick slow happy sad angry easy heavy noisy lazy busy hungry lucky loud quiet soft strong weak rich poor cheap deep nice
safe brave wise rude sharp sweet smooth calm mild kind proud fair plain tight loose firm careful beautiful wonderful
cheerful peaceful helpful hopeful playful painful useful grateful faithful careless hopeless helpless gentle simple
humble noble terrible horrible possible probable comfortable reasonable remarkable incredible basic specific automatic
dramatic historic polite complete separate immediate accurate private absolute sincere extreme strange rare serious
nervous curious dangerous famous obvious previous generous anxious jealous final total usual normal equal legal real
special general formal personal natural actual perfect exact correct direct sudden certain common clever bitter proper
regular similar clear bright dark warm cold fresh stupid rapid solid vivid silent frequent recent urgent patient
confident different innocent violent constant important instant elegant distant pleasant brilliant bold blind glad mad
bad harsh fierce tender smart steady ready clumsy greedy guilty merry crazy cruel eager open secret modest honest
active creative massive native negative positive effective relative social local mental moral global royal loyal
mutual annual casual visual tropical typical practical physical political medical musical magical logical critical
awful hateful graceful thoughtful thankful skilful wasteful doubtful fearful joyful shameful careless restless endless
selfish foolish childish stubborn broad narrow close large strict stiff swift thick thin wild willing loving
""".split()

# Spanish adjectives and nouns for persons and animals that have a feminine by rule: -o becomes -a, others take -a.
SPANISH = """
rojo negro blanco amarillo alto bajo gordo flaco bueno malo nuevo viejo bonito feo rico limpio sucio lento
largo corto loco tonto listo sano enfermo cansado contento aburrido divertido serio tranquilo nervioso
peligroso famoso delicioso hermoso precioso generoso orgulloso celoso oscuro claro seco mojado lleno barato caro duro
blando ancho estrecho abierto cerrado roto perfecto correcto falso cierto exacto moderno antiguo privado
mexicano italiano americano argentino chileno cubano peruano ruso chino griego turco sueco suizo polaco africano
europeo primero segundo tercero mismo solo soltero casado muerto vivo salado amargo fresco sincero honesto justo
hijo hermano abuelo primo sobrino nieto suegro amigo vecino novio maestro alumno camarero cocinero enfermero abogado
ingeniero arquitecto empleado obrero peluquero panadero carnicero granjero jardinero marinero gato perro pato conejo
lobo zorro oso mono burro cerdo esposo viudo socio ciudadano extranjero pasajero viajero compañero secretario
trabajador hablador encantador conservador profesor doctor director escritor pintor lector autor
vendedor jugador entrenador ganador perdedor corredor nadador pescador cazador soñador creador conductor
español ocupado preocupado enamorado enojado asustado sorprendido perdido vestido dormido querido
conocido desconocido parecido elegido prohibido pintado lavado cortado comprado vendido escrito puesto
amplio sabio necio ciego sordo mudo cojo calvo rubio moreno maduro tierno fino grueso plano recto curvo redondo
cuadrado hondo profundo lejano cercano diario eterno interno externo urbano humano divino santo bendito maldito
""".split()

# Other forms that are as usual as the first one, by word and Penn Treebank tag.
ALSO = {
    ("travel", "VBG"): ("travelling",),
    ("old", "JJR"): ("elder",),
    ("old", "JJS"): ("eldest",),
    ("bus", "NNS"): ("busses",),
    ("echo", "NNS"): ("echos",),
    ("penny", "NNS"): ("pence",),
    ("roof", "NNS"): ("rooves",),
    ("scarf", "NNS"): ("scarfs",),
}
# Format rows about words: a question and pairs of a word and its answer. The last two show what a form of a word is;
# neither is taught, and no other question is about these words.
FORMAT_WORDS = {
    "opposite": (
        "What is the opposite of {}?",
        "left right, day night, before after, inside outside, buy sell, push pull, start stop",
    ),
    "ordinal": (
        "What is the ordinal of {}?",
        "one first, two second, five fifth, nine ninth, twelve twelfth, six sixth, ten tenth",
    ),
    "person": (
        "What do you call a person who can {}?",
        "teach teacher, sing singer, swim swimmer, bake baker, sail sailor, drive driver, paint painter",
    ),
    "past": (
        "What is the past tense of {}?",
        "glow glowed, feed fed, tie tied, draw drew, break broke, plan planned, visit visited",
    ),
    "participle": (
        "What is the past participle of {}?",
        "sit sat, carry carried, choose chosen, watch watched, spend spent, write written, rise risen",
    ),
}
