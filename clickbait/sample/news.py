"""The synthetic news headlines: one template a line, written for this project.

A template is sentence case without its first capital; `clickbait.sample` fills the slots, mends "a" before a
vowel and gives the surface form. Words that both classes use stand in `clickbait.sample.words`, the phrases
of this class here.
"""

from __future__ import annotations

PHRASES: dict[str, str] = {
    "scandal": "an expenses scandal|the leaked letters|a housing contract|the ferry contract|undeclared gifts|a row over {policy} costs"
    "|the {project} overspend|claims of bullying|the missing {building} funds|a data leak at the ministry",
    "claim": "the {policy} will cost {price}|the {policy} will be reviewed in {month}|talks will resume on {weekday}"
    "|cuts cannot be ruled out|the {project} will open by {month}|more {jobs} are needed|the plan will not "
    "be dropped"
    "|there is no case for an election|the {policy} is working|the {project} is {few} months late|help for "
    "{folk} is on the way"
    "|the region is ready for {weather}",
    "says": "says|says|tells parliament|tells inquiry|insists",
    "decides": "backs|delays|rejects|approves|scraps|defends|amends|debates|suspends|revives",
    "decide": "back|delay|reject|approve|scrap|amend|debate|suspend|revive",
    "trouble": "budget talks|objections from residents|a legal challenge|a protest by {jobs}|a public inquiry|a rise in costs"
    "|{few} hours of debate|a safety review|a split vote|a court ruling",
    "crime": "fraud|arson|burglary|tax evasion|forgery|money laundering|bribery|theft|blackmail|perjury|insider trading|smuggling|assault",
    "vehicle": "bus|train|ferry|lorry|fishing boat|light aircraft|tram|coach|cargo ship|helicopter|van|fire engine",
    "crash": "overturns|catches fire|breaks down|hits bridge|leaves road|collides with tractor|runs aground|hits barrier",
    "near": "in {city}|near {city}|outside {city}|in {region}|north of {city}|in central {city}",
    "because": "after {weather}|as {weather} spreads|after {few}-day strike|amid staff shortage|after computer fault|despite warnings",
    "goods": "wheat|copper|steel|coffee|timber|natural gas|cocoa|cotton|sugar|tin|crude oil|aluminium|barley",
    "indicator": "inflation|unemployment|consumer spending|factory output|house building|retail sales growth|the trade deficit"
    "|wage growth|mortgage lending|government borrowing",
    "moves": "rises|falls|climbs|drops|slips|edges up|slows|eases",
    "rises": "rise|fall|climb|drop|slip|edge up|tumble|recover",
    "bank": "central bank|the Bank of {town}|{region} central bank|the national bank",
    "place": "hospital|prison|factory|power station|port|school|airport|warehouse|dairy|laboratory|depot|refinery",
    "discovery": "new species of {beetle}|gene linked to {illness}|crater beneath ice sheet|ancient {building} foundations"
    "|{beetle} fossil|faint galaxy|virus found in {pets}|mineral unknown on Earth|shipwreck off {city}|cause "
    "of {beetle} decline",
    "beetle": "beetle|moth|frog|orchid|bat|lizard|crab|fern|eel|spider|dolphin|wasp",
    "study": "study|trial|survey|report|review|research",
    "exposure": "air pollution|shift work|poor sleep|lead piping|noise|low income|smoking|obesity|salt intake|screen time|damp housing",
    "score": "1-0|2-0|2-1|3-0|3-1|3-2|4-0|4-1|4-2|5-1",
    "beat": "beat|edge past|hold off|thrash|knock out|draw with|lose to|come from behind to beat",
    "cup": "regional cup|league cup|the {region} Open|the national final|the promotion play-off|the {town} Trophy|the winter games",
    "injury": "knee injury|ankle injury|broken wrist|concussion|doping ban|hamstring strain|virus",
    "post": "chief executive|chairman|head of finance|chief scientist|head of research|finance director|director|managing director",
    "body_": "watchdog|regulator|ombudsman|committee|tribunal|public inquiry|coroner|panel",
    "prize": "{region} Book Prize|{town} Medal|national science prize|film festival's top award|{town} Poetry Prize|architecture award",
    "demand": "pay|safety|pensions|staffing|rosters|job cuts|working hours|pay freezes|holiday pay",
    "term": "{few} years|{few} months|{count} months|{count} years|life",
    "quote": "we cannot wait any longer|this was preventable|lessons must be learned|we were not consulted|the roof just gave way"
    "|no one is above the law|there is no money left|we will appeal|the figures speak for themselves|it "
    "sounded like thunder"
    "|every job matters|we had minutes to get out|patients are at risk|the system failed us",
    "tail": "||||, officials say|, report says|, union says| amid calls for review| as ministers meet in {city}"
    "| for first time since {year}| weeks before election| days before {region} budget|, {region} media "
    "report|, says {person}",
    "aside": "||||, officials say|, police say|, witnesses say| amid calls for review| for second time this year"
    "| for third time this {span}",
    "site": "factory|power station|warehouse|dairy|laboratory|depot|refinery|research centre|call centre",
    "breach": "price fixing|tax evasion|fraud|safety breaches|unpaid overtime|false advertising|river pollution|late payments",
    "court": "high court|appeals court|tribunal|judges|supreme court|ombudsman|regulator",
    "watch": "watchdog|regulator|ombudsman|consumer group|tribunal",
    "votes": "backs|rejects|approves|scraps",
    "setback": "staff shortage|a safety review|a legal challenge|a cyber attack|a court ruling|supply delays|fire at {site}"
    "|failed merger|{few}-day strike|surprise resignation|profit warning|loss of contract",
    "relative": "mother|father|brother|sister|daughter|son|widow|neighbour|cousin",
    "measure": "hosepipe ban|state of emergency|fire ban|boil-water notice|fishing ban|day of mourning|public holiday|water emergency",
}

# Statements, events, figures, courts, markets, scores, quotes, appointments.
NEWS = """
{region} parliament {decides} {policy}
{official} resigns over {scandal}{tail}
{official} {says} {claim}
{office} {says} {claim}
voters in {city} reject plan for {project}
coalition talks stall over {policy}{tail}
government delays {policy} until {month}{tail}
opposition calls for inquiry into {scandal}{tail}
{city} council {decides} {project} after {trouble}{tail}
{city} council {votes} {policy} by {few} votes{tail}
{person} elected mayor of {city} with {pct} percent of vote
ministers to meet on {weekday} over {policy}
turnout falls to {pct} percent in {city} election
lawmakers {decide} {policy} after {trouble}{tail}
{official} to step down in {month}
who will replace {person} as {office} of {region}?
will parliament {decide} the {policy} before {month}?
{region} and {region} sign trade deal on {goods}{tail}
{region} recalls ambassador over {scandal}{tail}
{count} candidates to stand in {city} election
{count} lawmakers quit party over {policy}{tail}
poll puts support for {policy} at {pct} percent
{person} named {post} of {firm}
{person} appointed {office} of {region}
{firm} appoints {person} as {post}
{firm} chairman {person} retires after {count} years
{firm} reports {pct} percent fall in profit{tail}
{firm} to buy rival {firm} for {price}{tail}
{firm} to open {site} {near}{tail}
{firm} fined {price} for {breach}
{firm} shares {rises} {few} percent after profit warning{tail}
shares in {firm} {rises} after {setback}
{firm} halts {gadget} production after {setback}{tail}
{goods} prices {rises} {because}{tail}
{goods} prices {rises} {few} percent in {month}{tail}
{indicator} {moves} to {few} percent in {month}{tail}
{indicator} {moves} for {few} months in a row{tail}
{bank} holds interest rates at {few} percent{tail}
will {bank} cut rates in {month}?
{bank} raises rates as {indicator} {moves}{tail}
{pct} percent of {folk} face higher rents, survey finds
{folk} face delays as {jobs} strike over {demand}
{jobs} {near} vote to strike over {demand}{tail}
{jobs} end strike {near} after {few} weeks{tail}
{count} {jobs} lose jobs as {place} closes {near}
union and {firm} reach deal on {demand}{tail}
{count} injured as {vehicle} {crash} {near}{aside}
{vehicle} {crash} {near}, injuring {few}{aside}
{few} rescued after {vehicle} {crash} {near}
{count} evacuated after fire at {building} {near}{aside}
firefighters tackle blaze at {building} {near}{aside}
fire destroys {building} {near}{aside}
police search for missing {kin} {near}
police find {object} stolen from {city} museum in {year}
police arrest {few} over {crime} {near}{aside}
{few} charged with {crime} after raid {near}{aside}
{person} jailed for {term} for {crime}
{city} {job} jailed for {crime}
former {firm} {post} cleared of {crime}
former {office} {person} on trial for {crime}
{body_} finds {firm} misled {folk}
{body_} to rule on {policy} in {month}
{body_} criticises {city} {place} over {demand}
{body_} orders review of {place} safety {near}
judge dismisses {crime} case against {official}
jury fails to reach verdict in {city} {crime} trial
{weather} closes {building} {near}
{weather} delays flights at {city} airport
{weather} forecast for {region} on {weekday}
{region} declares {measure} {because}{tail}
{count} flights cancelled at {city} airport {because}
flood warnings issued for {region} after {weather}{aside}
scientists identify {discovery}
researchers discover {discovery}
{study} links {exposure} to {illness}
{study} finds {exposure} raises risk of {illness}
{illness} cases {rises} {pct} percent in {region}{aside}
hospitals {near} report rise in {illness} cases{aside}
{region} begins {illness} screening for {folk}
{illness} vaccine approved for use in {region}{tail}
regulator approves {firm} drug for {illness}{tail}
{count} treated for food poisoning after {food} recall
{team} {beat} {team} in {cup}
{team} sack head coach {person} after {few} defeats{tail}
{person} wins {cup} {sport} title
{person} out for {few} weeks with {injury}
{person} to miss {cup} with {injury}
can {team} avoid relegation without {person}?
{region} to host {sport} championship in {month}{tail}
{person} wins {prize}
{city} museum to return {object} to {region}{tail}
{fame} {person} dies aged {count}
{fame} {person} cancels {region} tour after {injury}
{show} to end after {few} series
{person} to direct film about {region} {building} fire
{object} sells for {price} at {city} auction
{project} {near} delayed until {month}{tail}
work begins on {project} {near}{tail}
residents oppose {project} {near}
{building} {near} to close in {month}{tail}
{building} {near} reopens after {few} years{tail}
{city} {place} to be sold for {price}{tail}
{price} needed to repair {building} {near}, report says
{count} schools {near} closed by {weather}
exam results in {school} {rises} in {region}
{city} university suspends {school} lecturer over {scandal}
"{quote}," says {official}
"{quote}," says {city} {job} after {vehicle} {crash}
"{quote}": {jobs} protest over {demand} {near}
"{quote}": {city} {body_} told of {building} fire
{city}: {few} arrested over {crime}
live: {folk} stranded as {weather} hits {region}
{firm}'s {post} denies {crime}
{region}'s {policy} ruled unlawful by {court}{tail}
{city}'s {building} to reopen on {weekday}
{person}'s appeal against {crime} verdict fails
is {region} heading for an early election?
outage at {firm} leaves {folk} without service
satellite built by {firm} reaches orbit{tail}
{firm} to test driverless {vehicle} {near}
{region} bans {gadgets} in classrooms from {month}{tail}
{count} {pets} seized from farm {near}{aside}
rare {beetle} recorded {near} for first time since {year}
can {region} meet its {goods} target by {month}?
could {weather} close the {building} {near}?
does {exposure} cause {illness}? {study} divides {jobs}
how much will the {policy} cost {folk}?
how far will {goods} prices {rises} in {month}?
is {firm} ready to sell its {site} {near}?
should the {policy} apply to {folk}?
what next for {firm} after {setback}?
what does the {region} {policy} change?
who pays for the {project} {near}?
will {jobs} accept the {firm} offer on {demand}?
will {person} be fit for the {cup}?
when will the {building} {near} reopen?
why was the {project} {near} delayed?
has {indicator} peaked in {region}?
did {official} know about {scandal}?
did {firm} break the law on {demand}?
are {jobs} {near} about to strike?
can {official} survive {scandal}?
"{quote}," {jobs} tell {official}
"{quote}," {city} inquiry hears
"{quote}," {relative} of {crime} victim tells court
{official}: "{quote}"
{city} {job}: "{quote}"
{jobs} {near} say "{quote}"
court told "{quote}" in {city} {crime} trial
report on {city} {place} says "{quote}"
"{quote}": {folk} on the {building} fire
{city} fire: {few} held over {crime}
weather: {weather} to spread across {region}
budget: {folk} to pay more from {month}
{city} trial: {job} tells of {crime}
{firm} strike: talks to resume on {weekday}
poll: {pct} percent of {folk} oppose {policy}
obituary: {fame} {person}
{policy}: {official} faces new questions
{illness}: {region} to screen {folk}
timeline: the {city} {building} fire
update: {vehicle} {crash} {near}
{firm}'s {site} {near} to close
{city}'s {jobs} to get {pct} percent pay rise
{official}'s {policy} faces {trouble}
{team}'s title hopes fade after {injury} to {person}
{region}'s {illness} cases {rises} {pct} percent
{region}'s {jobs} leave over {demand}
{vehicle} {crash} {near}, {few} hurt
{few} dead, {count} hurt as {vehicle} {crash} {near}
{illness} drug works, {study} finds
{region} rejects {policy}, early count shows
{goods} up, {goods} down in {region} trading
{jobs} walk out {near}, union says
{count} {jobs} honoured for rescue {near}
{count} {folk} join lawsuit against {firm}
{count} percent of {jobs} plan to quit, survey finds
{few} {firm} directors resign over {scandal}
{region} and {region} end talks, fail to agree on {goods}
{person} sworn in as {office}, promises review of {policy}
{bank} holds rates, warns on {indicator}
{jobs} end strike, return to work {near}
{firm} cuts forecast, blames {weather}
{firm} loses appeal, must pay {price}
{team} win again, go top of league
{fame} {person} dies, aged {count}
{city} {building} floods, {folk} moved to safety
{few} held after {crime} raid, police say
{region} to vote on {policy}, {office} says
{exposure} raises {illness} risk, {study} finds
{firm} sorry after outage, offers refunds
{vehicle} services resume {near}, operator says
{city} by-election called after {scandal}
{firm} in last-minute talks with {jobs}
two-thirds of {folk} back {policy}
poll: should {region} {decide} the {policy}?
markets: have {goods} prices peaked?
can {person} win the {region} vote?
will the {city} {building} open in {month}?
how did the {city} fire start?
where will the {region} {place} be built?
what will {person} do as {office}?
when will {firm} pay its {jobs}?
has the {policy} failed {folk}?
how many {jobs} will {firm} need?
how safe is the {city} {place}?
who set fire to the {city} {building}?
{team} win {score} in {region}
{person} scores twice as {town} win {score}
{team} go top after {score} win
{firm} to hire {big} {jobs}
{big} {folk} march against {policy}
{big} {jobs} to strike over {demand}
{region} holds first vote since {year}
{person} jailed for {year} {crime}
court hears appeal in {crime} case
judge jails {job} for {crime}
man admits {crime} at {city} court
woman denies {crime} at {city} court
two {jobs} deny {crime} charges
{city} jury clears {job} of {crime}
{town} beat {town} {score} in {sport}
{town} edge past {town} {score} in {sport}
{town} draw {score} with {town} in {sport}
"""

# The hard ones, with the angle of a feature: they tell, they do not tease.
SOFT_NEWS = """
why {jobs} {near} are leaving the profession
why {goods} prices are rising again
what the {policy} means for {folk}
what you need to know about the {policy} vote on {weekday}
what we know about the {vehicle} accident {near}
how {city} plans to pay for its {project}
how {region} cut {illness} rates by {pct} percent
{few} things to watch in the {region} election
{few} questions about the {policy} answered
{count} ways the {policy} changes household costs
{city} {kin} reunited with {object} lost in {year}
{kin} and {pet} rescued from cliff {near}
meet the {city} {jobs} standing for election
a {city} {job} teaches {school} to {folk} at night
inside the {city} workshop that repairs old {gadgets}
you can now renew a passport at {city} {building}
you may be owed money under the {policy}, {watch} says
your {bills} may rise in {month}, {watch} warns
should {folk} worry about {illness} this {month}?
can {food} lower the risk of {illness}? trial finds no effect
is your {gadget} on the {firm} recall list?
{job} who saved {kin} from fire receives {town} medal
cast of {show} returns for {few} new episodes
{person} talks about life after {injury}
{city} says farewell to its last {job}
the {decade} {building} {near} that may be listed
these {few} roads {near} will close for {weather} repairs
a secret {object} found under {city} {building} goes on display
how {jobs} learn to sleep by day
the {job} who walks to work in {weather}
life as a {job} {near}
a {job} remembers the {city} fire
where {folk} in {region} go when it rains
who buys {gadgets} at {city} market?
"""
