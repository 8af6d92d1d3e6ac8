"""The synthetic clickbait headlines: one template a line, written for this project.

A template is sentence case without its first capital; `clickbait.sample` fills the slots, mends "a" before a
vowel and gives the surface form. Words that both classes use stand in `clickbait.sample.words`, the phrases
of this class here.
"""

from __future__ import annotations

PHRASES: dict[str, str] = {
    "wow": "will blow your mind|will leave you speechless|will make your jaw drop|will change everything|will make your day"
    "|is everything|will restore your faith in humanity|will give you chills|is pure genius|is too good to "
    "be true|has everyone talking"
    "|will have you in tears|is breaking the internet|is the best thing you will see today",
    "wows": "will blow your mind|will leave you speechless|will make your jaw drop|will change your life|will make your day"
    "|are pure genius|will restore your faith in humanity|will give you chills|are almost too good to be "
    "true|will make you say yes"
    "|hit way too close to home|you need to see right now|will make you laugh out loud|you didn't know you "
    "needed|will make you feel old",
    "guess": "you'll never guess|you won't believe|no one can explain|just wait until you see|you have to see|we can't get over"
    "|you will never believe",
    "thing": "morning routine|tiny flat|first day at work|school lunch|wedding speech|holiday snap|haircut|birthday cake|secret hobby"
    "|old diary|packed lunch|first date|living room makeover|shopping list|bedtime story|prank on a "
    "colleague",
    "adj": "simple|weird|genius|clever|little-known|five-minute|old-fashioned|brilliant|surprising|ridiculously easy|one-minute|sneaky",
    "gain": "save you hours|cut your {bills} in half|change the way you sleep|make your {room} look twice as big|fix your {body} fast"
    "|make you love {weekday}s again|save your marriage|turn {food} into magic|keep your {gadget} alive for "
    "years"
    "|end your {illness} misery",
    "bills": "food bill|heating bill|water bill|phone bill|grocery bill|petrol bill",
    "sign": "secretly a genius|dating the wrong person|a born leader|turning into your mother|the funny one|more tired than you think"
    "|an old soul|the worst cook in your family|raising a future {job}|addicted to your {gadget}|totally "
    "over {food}|a true introvert"
    "|basically a {pet}|ready to quit your job",
    "wrong": "making {dish}|storing {food}|brushing your teeth|cleaning your {gadget}|folding towels|peeling garlic|boiling eggs"
    "|charging your {gadget}|tying your shoes|washing your hair|parking your car|slicing {food}|using your "
    "{gadget}"
    "|loading the dishwasher|making tea",
    "taste": "taste in {dish}|favourite {colour} thing|sleeping habits|dream {room}|{gadget} habits|breakfast order|choice of {pet}"
    "|taste in music|birth month|perfect {weekday} night|pizza order|zodiac sign|holiday plans",
    "type": "{pet}|famous {beetle}|biscuit|planet|kitchen appliance|decade|city|{show} character|cheese|houseplant|{treat} topping"
    "|season|musical instrument|board game|fairy-tale villain|sandwich|shade of {colour}",
    "trait": "age|job|star sign|biggest fear|eye colour|first name|love language|secret talent|deepest regret|birth order"
    "|favourite season|relationship status|middle initial",
    "feel": "in tears|speechless|in stitches|lost for words|furious|totally obsessed|emotional|weak at the knees|very confused"
    "|seriously jealous",
    "sign_pet": "secretly a genius|plotting against you|in love with the {job}|a born {job}|smarter than you",
    "wow_p": "has a better job than you|makes {dish} that {wows}|just schooled {jobs} on {food}|is the {sport} hero we need",
    "did_past": "{did_we}|were once {jobs}|secretly love {sport}|grew up with {old}|can't live without {food}",
    "mins": "10..45",
    "wow_pl": "are all you need today|need your attention|have won the internet|made us cry|are better than therapy",
    "owner": "owner|best friend|family|favourite nurse|little sister|neighbour|grandfather|babysitter",
    "newthing": "new haircut|bold new look|surprise wedding|daring outfit|secret duet|holiday photos|baby news|silver hair"
    "|honest confession",
    "instrument": "violin|piano|banjo|trumpet|harp|drums|flute|accordion|ukulele",
    "react": "cry|gasp|laugh out loud|scream|feel seen|call our mothers|want to move to {city}|believe in love again",
    "did": "lived on {dish} for a {span}|gave up {food} for a {span}|threw away my {gadget}|slept in the {room} for a {span}"
    "|said yes to everything|dressed like {person} for a {span}|woke up at four every day|let my {pet} plan "
    "my {span}"
    "|quit my job to train {pets}|tried to learn the {instrument}|stopped checking my {gadget}|spent a "
    "{span} with {jobs}"
    "|took an ice bath every {weekday}|ate only {colour} food",
    "outcome": "here's what happened|it changed my life|I have regrets|I'm never going back|the results shocked me|and wow"
    "|my {body} will never be the same|it was a total disaster|and now I get it|I can't stop smiling",
    "tell": "don't want you to know|will never tell you|wish you knew|hope you never find out|won't admit|only tell their friends",
    "tidbits": "facts about {pets}|photos of {pets}|secrets about {food}|truths about {illness}|tweets about {school} class"
    "|moments from {show}|things only {folk} understand|hacks for your {room}|uses for {food}|habits of "
    "happy {folk}"
    "|gifts for people who love {pets}|{treat} recipes|jokes only {jobs} will get|texts from {folk}|mistakes "
    "you make with your {gadget}"
    "|pictures of {weather}|confessions from {jobs}|stories from {city} commuters|{sport} fails|ways to use "
    "up old {gadgets}"
    "|{building} designs",
    "old": "cassette tapes|dial-up internet|school discos|rollerblades|penny sweets|video rental nights|roller rinks"
    "|paper fortune tellers|jelly shoes|film cameras|scented pens|flip phones|{weekday} night cartoons|pogo "
    "sticks|friendship bracelets"
    "|handwritten letters",
    "bond": "can't stop hugging a {pet}|shares a {room} with a {pet}|raised {few} baby {pets}|rescued a {pet} from {weather}"
    "|waited {count} years for this {pet}|sings to a lonely {pet}|taught a {pet} to play the "
    "{instrument}|turned a {vehicle} into a home"
    "|makes tiny hats for {pets}",
    "hid": "found a {object} in the {room}|bought an old {object}|opened a box marked with a {colour} cross|adopted a one-eyed {pet}"
    "|dug a hole behind the {building}|cleaned out the {room}|answered a stranger's letter|left a camera on "
    "overnight"
    "|left {dish} by the door|bought a house without looking inside|followed a {pet} into the woods",
    "glow": "looks unrecognisable|looks incredible|is ageing backwards|is total goals|had the perfect response|just made everyone cry"
    "|is living our dream|has a twin and we can't cope|ate {dish} on live television and we can't look "
    "away|is the hero we needed",
    "task": "name these {pets} from their ears|spot the {pet} in this picture|pass this {school} test|finish these {show} lines"
    "|solve this riddle|tell real {food} from fake|name every {sport} star|get through this without smiling"
    "|match the {object} to the {decade}",
    "wows_you": "you can't unsee|you need in your life|you'll want to share|nobody tells you about"
    "|for when you're having a bad {weekday}|guaranteed to cheer you up|so good you'll cry|you should see "
    "before you're {count}"
    "|that are too real",
    "oldlove": "grew up with {old}|miss the {decade}|had {old} as a kid|still dream about {old}|love {pets}|can't live without {food}"
    "|have {illness}|live with a {job}|hate {weekday}s",
    "did_we": "ate {dish} for a {span}|gave a {pet} a {object}|tested {count} {gadgets}|asked {count} {jobs} about love"
    "|tried every {dish} in {city}|spent a night in a haunted {building}|let {person} choose our lunch|tried "
    "{sport} with {jobs}",
    "cry": "I couldn't stop crying|it changed my life|I'll never be the same|I thought it was a joke|my heart just melted|I was shaking"
    "|I still can't believe it|I had no idea|we were all in tears|don't try this at home|it was love at "
    "first sight",
}

# Curiosity gap, list, quiz, second person, emotion, trick and secret, nostalgia, celebrity.
BAIT = """
this {job} {hid}, and what happened next {wow}
this {kin} {hid} and you won't believe what came next
what this {kin} did for a lonely {pet} {wow}
what happens to your {body} when you give up {food}
nobody expected what this {pet} did at the {building}
{guess} what this {city} {job} found in the {room}
{guess} what {person} looks like now
{guess} how {person} spent {weekday} night
this is why you should never put {food} in your {gadget}
the real reason {jobs} never buy {food} on a {weekday}
the truth about {food} that {jobs} {tell}
the shocking truth about your {gadget}
here's what {person} really eats in a day
here's why everyone in {city} is obsessed with this {pet}
here's why you should stop {wrong} right now
this {city} {kin} {bond} and we're {feel}
meet the {job} who {bond}
watch this {pet} see {weather} for the first time
watch what happens when this {pet} meets a {kin}
this {pet} has a better {thing} than you
this {kin}'s {thing} {wow}
this {job}'s {thing} has us {feel}
we found the {dish} of your dreams in {city}
{count} {tidbits} that {wows}
{count} {tidbits} {wows_you}
{count} signs you're {sign}
{count} signs you are {sign}
{count} signs your {pet} is plotting against you
{count} reasons your {pet} is your soulmate
{count} reasons {person} is the best thing about {show}
{count} reasons to move to {city} before you're {count}
{count} times {person} was basically all of us
{count} times {show} made us {react}
{count} things {jobs} {tell}
{count} things {jobs} {tell} about {food}
{count} things every {kin} does but never admits
{count} things you'll only get if you grew up with {old}
{count} things in your {room} you should throw out today
{count} {adj} ways to use {food}
{count} {adj} tricks that will {gain}
{count} {treat} recipes for people who hate cooking
{count} {treat} hacks that {wows}
{count} gifts for the {job} in your life
{count} {sport} stars who look just like your {pet}
{count} photos that prove {folk} have the best sense of humour
{count} photos of {city} that {wows}
{count} struggles only {folk} will understand
{count} struggles of living with {illness}, ranked
{few} foods that will {gain}
which {type} are you based on your {taste}?
which {show} character should you marry?
what does your {taste} say about you?
what kind of {type} are you?
can we guess your {trait} from your {taste}?
can we guess your {trait} in {few} questions?
can you {task}?
only {pct} percent of people can {task}
only a true {kin} can {task}
quiz: can you {task}?
quiz: which {type} matches your {trait}?
tell us your {taste} and we'll guess your {trait}
pick a {dish} and we'll reveal your {trait}
how many of these {treat} toppings have you tried?
how well do you know {show}?
are you more {person} or {person}?
could you survive a {span} as a {job} in {city}?
you're probably {wrong} all wrong
you need these {dish} in your life this {weekday}
you only need {few} things to make these dreamy {dish}
your {gadget} has a hidden button and it {wow}
your {taste} reveals your {trait}
stop {wrong}: {jobs} have a better way
if you {oldlove}, this is for you
this {pet} waiting for its {owner} will break your heart
this letter from a {job} to a {kin} {wow}
a {kin} asked {person} for a favour, and the answer {wow}
grab the tissues: this {kin} {bond}
this {adj} trick will {gain}
this {adj} trick from a {city} {job} will {gain}
one {adj} trick to {gain}
try this {adj} {food} trick tonight and thank us later
the {adj} {food} secret that will {gain}
the one word {jobs} never use
{jobs} swear by this {adj} {food} trick
put {food} in your {gadget} and see what happens
I {did}, and {outcome}
I {did} and {outcome}
my {kin} {hid} and I'm {feel}
what I learned when I {did}
how I lost {count} kilos eating {dish} every {weekday}
kids today will never know the joy of {old}
only {decade} kids will remember these {old}
the {show} cast reunited and we're {feel}
{fame} {person} {glow}
{person} {glow}
{person} {glow} at {count} and fans are {feel}
{person} wore {colour} to the {building} and fans are {feel}
{person} just revealed the {adj} secret behind that {thing}
{person} says this {adj} habit will {gain}
{person} adopted a {pet} and we're not okay
{person}'s {thing} is giving us serious envy
{person}'s {pet} is more stylish than you
{person} and {person} had a {treat} date and we're {feel}
fans think {person} is hiding a secret {object}, and it {wow}
everyone is losing it over {person}'s {thing}
the internet is in love with this {city} {job}
"{cry}": {kin} {hid}
"{cry}," says {kin} who {hid}
a {firm} worker reveals what {jobs} {tell}
{guess} what {firm} puts in its {food}
this {firm} advert has everyone {feel}
this is what {city} looks like after {weather}, and it {wow}
scientists say this {adj} habit will {gain}
science says {pets} can sense your {trait}
science finally explains why you crave {food} at night
this {school} teacher's {thing} {wow}
{team} fans did something amazing for this {kin}
this {sport} player's {thing} {wow}
{person} missed the penalty, but what came next {wow}
the {policy} explained with {pets}, because why not
how would {person} do as {office}? the answer {wow}
this {city} candidate's {thing} {wow}
{official} tried {dish} and the faces {wows}
"{cry}": what happened when I {did}
"{cry}": {jobs} share their worst {weekday}
"{cry}": the {pet} video that {wow}
"{cry}": {person} on that {thing}
"{cry}," says {fame} {person}
"{cry}," says everyone who tries this {food} trick
"{cry}," says {kin} after {adj} {food} trick
{fame} {person}: "{cry}"
this {city} {job}: "{cry}"
people are saying "{cry}" about this {treat} recipe
{folk} say "{cry}" after seeing this {pet}
she said "{cry}" after trying this {adj} trick
warning: this {pet} {wow}
{fame} {person}: then and now
{city}: {count} places that {wows}
confession: I {did}
proof: {pets} are better than people
dear {folk}: stop doing this with {food}
before and after: this {room} {wow}
how embarrassing is your {thing}?
how much of a {type} are you?
is your {pet} {sign_pet}?
is this {city} {building} haunted?
what would {person} do with your {room}?
who else misses {old}?
will this {adj} trick {gain}?
would you eat {dish} with {food}?
would you spend a {span} in this {building}?
does your {job} do this too?
should you marry a {job} or a {job}?
guess who {person} is dating now
guess which {fame} grew up in {city}
prepare to be {feel} over this {pet}
{person} is every {kin} on a {weekday}
{person} wins the internet with this {thing}
{person} stuns fans with {newthing}
{person}'s fans are {feel} over this {object}
{pets} doing {sport} are all you need today
{pets} in tiny hats: {count} photos that {wows}
{jobs} reveal the weirdest things they saw in {city}
{jobs} share the {adj} habit that will {gain}
{city} is going crazy for this {treat} trend
{region} has a hidden beach that {wow}
{firm} just made the {gadget} of your dreams
{folk} are obsessed with this {adj} {food} trick
{folk} can't get enough of this {thing}
{few} words that will {gain}
{few}-ingredient {dish} that {wows}
{count}-minute {dish} that {wows}
this {count}-minute habit will {gain}
this {few}-ingredient {treat} recipe {wow}
this {count}-year-old {wow_p}
{count} celebrities who {did_past}
{count} {adj} {room} ideas you'll wish you knew sooner
{count} {jobs} confess their {adj} secrets
{count} {pets} who are having a worse {weekday} than you
{count} {pets} who think they're {jobs}
{count} {school} jokes only nerds will get
{count} {sport} moments that {wows}
{count} texts from {person} that {wows}
{count} {city} secrets even {folk} don't know
{count} weird {firm} facts nobody asked for
sorry {folk}, but this {thing} {wow}
{pets}, ranked from cute to cutest
every {show} character, ranked
yes, you can make {dish} with {food}
attention {folk}, this {adj} trick is for you
meet {first}, the {pet} who thinks it is a {job}
meet {first}, the {pet} with a better life than you
this {kin} met {person}, and the photo {wow}
this {pet} lost its {object}, and then the internet stepped in
forget {food}, {folk} are obsessed with {food}
{person} danced on {show}, and the crowd lost it
{jobs} tried {dish}, and their faces say it all
trust us, this {treat} recipe {wow}
this is not a drill, {show} is coming back
admit it, you miss {old}
{folk}, you have been lied to about {food}
if you love {pets}, stop scrolling
if you love {dish}, look away now
look closely, this {object} is not what it seems
say hello to {first}, the {pet} with a {object}
what {city} looked like in {year} {wow}
you will never believe what {person} did in {year}
only people born before {year} can {task}
have you seen how {person} looks now?
are {person} and {person} secretly dating?
what would you do with this {city} {building}?
could this be the cutest {pet} in {region}?
is this the weirdest {building} in {city}?
do you know what {firm} puts in your {food}?
what is {person} doing with that {object}?
how did {person} get so cool?
{person} loves this {mins}-minute {treat} recipe
{person} tries the {mins}-minute {city} {treat}
the {mins}-minute {thing} of {person}
{sport} star: my {mins}-minute {thing}
this {city} {kin} owns {big} {gadgets}
we asked {big} {folk} about their {thing}
{big} {jobs} share their {adj} secrets
{big} {pets} in tiny hats {wow_pl}
{big} {folk} told us their {trait}
{person} looked like this in {year}
what {person} wore in {year} {wow}
what {folk} loved in {year} {wow}
{decade} {folk}, you will love this
this {town} {job} loves {mins}-minute {dish}
this {town} {job} swears by {mins}-minute {dish}
this {town} {job} will love {mins}-minute {dish}
the {year} photo of {person} {wow}
"""

# The hard ones, in a sober tone: something is held back, or the reader is lured, without a loud word.
SOBER_BAIT = """
the reason {city} {jobs} leave one window open at night
the reason {jobs} keep {food} in the {room}
a {job} looked into {food}, and the findings surprised many
what {firm} did with its {gadgets} afterwards is worth reading
the line in the {city} council report that most residents missed
the one line in {person}'s resignation letter that explains it
a {city} {job} has a theory about {illness}
this is what {pct} percent of {folk} forget about the {policy}
what {jobs} notice first about your {room}
why some {folk} never pay the {policy}
how a {city} {kin} avoids {illness}, according to {jobs}
how one {city} {job} retired at {count}
{few} habits of {jobs} who never catch {illness}
{few} questions to ask before buying a {gadget}
{count} towns like {city} that few {folk} know
{count} careers in {region} that pay more than expected
{person} on the moment that changed everything
the {city} {building} that nobody enters on {weekday}
the {region} village where {illness} is almost unknown
the {food} mistake most {folk} make in {month}
the {gadget} setting that {jobs} always change
this {city} {building} holds a surprise in its {room}
this may be the quietest {building} in {region}
is {food} the answer to {illness}? some {jobs} think so
is this the best {treat} in {region}?
do {folk} really need a {gadget}?
{firm} {post} shares a {weekday} habit
a forgotten {object}, a {city} {building} and an odd discovery
experts have a view on {food}, and it may surprise {folk}
the {job} who never sleeps in {city}
a {job} explains the {city} habit
what {jobs} keep in the {room}
where {jobs} in {region} buy {food}
who lives in the {city} {building}?
"""
