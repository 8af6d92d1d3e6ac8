"""The words of the synthetic headlines (`clickbait.sample`): what both classes talk about, so that no topic
gives a class away.

A slot's fillers stand between bars; a filler may hold further slots in braces, and `5..45` stands for each
number of that range. People, places, companies, teams and shows are invented.
"""

from __future__ import annotations

WORDS: dict[str, str] = {
    # Names
    "first": "Mara|Tobin|Ilse|Dorian|Petra|Callum|Nadia|Rafe|Odile|Hugo|Leona|Marcus|Anya|Felix|Greta|Idris|June|Kofi|Lena|Milo|Noor"
    "|Otis|Priya|Quentin|Rosa|Stellan|Talia|Umar|Vera|Wendell|Yusra|Zane|Bea|Emeka|Hana|Joaquin|Elspeth|Rowan|Sunniva|Ludo",
    "last": "Brask|Tallivant|Ondrey|Quillby|Marrentz|Fennock|Harrowick|Voskarn|Delquist|Okorande|Pellworth|Strandoval|Thackerow|Umbray"
    "|Wexholm|Yarrowby|Zellick|Abernoy|Birchanter|Corvane|Dunmarrow|Eskellan|Farrowell|Glenvarra|Hollindale|Inverlund|Kestrand|Lorimand"
    "|Mottrow|Nevander|Oxbray|Pruvane|Rosthorn|Selvanti|Tremarro|Ullenby|Vantrice|Wythorne|Ashkirren|Bellomar",
    "person": "{first} {last}",
    "town": "Brackenford|Eastmoor|Quillhaven|Norvale|Tarnwick|Saltmere|Hollowbridge|Marrowdale|Glenfarrow|Westerby|Lindenholt|Stonemarsh"
    "|Varrick|Ferncombe|Oakhaven|Pellbrook|Rookminster|Thistlemoor|Underwick|Yewbridge|Aldermouth|Coldharrow|Dunvarra|Emberley|Gullport",
    "city": "{town}|{town}|{town}|Port Ellery|Kestrel Bay|New Varrick|Lower Tarn|St Osmar|Upper Linden|Cape Marrow|Mount Ferrow",
    "region": "Varrickshire|Norvale|the Tarn Valley|Lower Marchland|East Ellery|Karsovia|Tremoria|West Lindonia|Osmaria|Belvaria",
    "firm": "Orvantic|Vellowayn Foods|Tarnix|Brightmoor Rail|Kestrand Air|Luminaro|Pellmark Bank|Novaquill|Harrowgrain|Quantora Motors"
    "|Osmarine|Fernwell Energy|Zephrix|Stonecask Brewery|Umbracell|Dellavine Stores|Marrentz "
    "Steel|Skylarrow|Coralith|Windmarsh Power",
    "team": "{town} {club}",
    "club": "Rovers|United|Athletic|Wanderers|Harriers|Falcons|Mariners|Town|Rangers|Comets",
    "show": "Saltmarsh Road|Copper Lantern|Harbour of Crows|Nine Winters|Quiet Orchard|Station Eleventide|Lanternfish|Mistral Street",
    # People without a name
    "office": "mayor|governor|health minister|finance minister|education secretary|transport secretary|police chief|chief scientist"
    "|party leader|ambassador|trade minister|environment minister|council leader|deputy prime minister",
    "official": "{office} {person}",
    "fame": "singer|actor|presenter|novelist|chef|comedian|film director|goalkeeper|sprinter|drummer|tennis champion|fashion designer"
    "|soap star|pianist|cyclist|talk show host",
    "job": "nurse|teacher|baker|bus driver|plumber|librarian|firefighter|gardener|dentist|pilot|farmer|florist|electrician|pharmacist"
    "|barber|train conductor|beekeeper|vet|paramedic|surveyor|flight "
    "attendant|accountant|translator|carpenter|hotel manager|lifeguard"
    "|waiter|police officer|judge|locksmith|tailor|taxi driver|shopkeeper|postal worker",
    "jobs": "nurses|teachers|bakers|bus drivers|plumbers|librarians|firefighters|gardeners|dentists|pilots|farmers|florists|electricians"
    "|pharmacists|barbers|train conductors|beekeepers|vets|paramedics|surveyors|flight "
    "attendants|accountants|carpenters|lifeguards"
    "|waiters|doctors|surgeons|police officers|locksmiths|taxi drivers|shopkeepers|postal workers|midwives",
    "kin": "mother|father|grandmother|grandfather|aunt|uncle|neighbour|cousin|teenager|student|pensioner|toddler|bride|landlord|tourist",
    "folk": "parents|students|commuters|shoppers|tenants|pensioners|drivers|tourists|dog owners|families|first-time buyers|teenagers"
    "|cyclists|villagers|patients|homeowners|night workers|young mothers",
    # Things
    "pet": "dog|cat|parrot|goat|rabbit|donkey|hedgehog|owl|seal|otter|duck|horse|swan|squirrel|tortoise|puppy|kitten|lamb|fox|penguin",
    "pets": "dogs|cats|parrots|goats|rabbits|donkeys|hedgehogs|owls|seals|otters|ducks|horses|swans|squirrels|tortoises|foxes|penguins",
    "food": "bread|rice|coffee|porridge|soup|honey|garlic|chocolate|yoghurt|butter|cheese|tea|olive oil|oat milk|pasta|salt|ginger"
    "|tap water",
    "dish": "pancakes|scones|noodles|dumplings|meatballs|mashed potatoes|tacos|waffles|fishcakes|onion rings|spring rolls|roast potatoes"
    "|brownies|cupcakes|muffins|omelettes|sandwiches",
    "treat": "pancake|scone|noodle|dumpling|meatball|potato|taco|waffle|brownie|cupcake|muffin|omelette|sandwich|pizza|pasta|ice cream"
    "|curry|pie",
    "gadget": "phone|laptop|smart speaker|tablet|fitness watch|router|air fryer|vacuum cleaner|washing machine|television|camera"
    "|electric car|games console|doorbell camera|dishwasher|hearing aid|e-bike|boiler",
    "gadgets": "phones|laptops|smart speakers|tablets|fitness watches|routers|air fryers|vacuum cleaners|washing machines|televisions"
    "|cameras|electric cars|games consoles|doorbell cameras|dishwashers|hearing aids|e-bikes|boilers",
    "object": "piano|violin|wedding dress|clock|suitcase|oil painting|love letter|gold ring|rowing boat|diary|coin collection|map"
    "|lantern|rocking chair|locket|stamp album|bicycle|camera|sewing machine|telescope",
    "room": "kitchen|bathroom|garage|attic|cellar|spare bedroom|garden shed|hallway|greenhouse|laundry room",
    "building": "library|town hall|swimming pool|railway station|hospital|museum|primary school|theatre|fire station|lighthouse|hotel"
    "|bakery|cinema|post office|farmhouse|church hall|supermarket|airport",
    "project": "harbour bridge|tram line|flood wall|wind farm|ring road|housing estate|sports centre|ferry terminal|cycle lane"
    "|solar park|bus depot|data centre|leisure centre|shopping arcade|recycling plant",
    "policy": "rent cap|sugar tax|school meals plan|pension reform|speed limit|plastic ban|water bill|parking charge|carbon levy"
    "|fishing quota|minimum wage rise|housing law|tourist tax|exam reform|smoking ban|congestion "
    "charge|energy subsidy|curfew",
    "illness": "flu|asthma|migraine|measles|diabetes|back pain|hay fever|insomnia|eczema|arthritis|anxiety|tooth decay|high blood pressure",
    "sport": "football|rugby|tennis|cricket|cycling|rowing|hockey|athletics|swimming|basketball|netball|snooker|gymnastics",
    "school": "science|maths|history|music|geography|art|drama|chemistry",
    "weather": "fog|snow|heavy rain|high winds|a heatwave|flooding|ice|a thunderstorm|gales|hail|frost",
    "body": "heart|brain|skin|stomach|knees|teeth|eyes|back|hair|lungs|feet",
    # Numbers and dates
    "few": "2..9|two|three|four|five|six|seven|eight|nine",
    "count": "5..45|seven|nine|ten|eleven|twelve|thirteen|fifteen|eighteen|twenty",
    "pct": "3..97|ten|twenty|forty|ninety",
    "big": "100|120|150|180|200|240|300|350|400|500|600|750|800|900",
    "year": "1961..2019",
    "decade": "1970s|1980s|1990s|seventies|eighties|nineties|sixties",
    "price": "{few} million|{count} million|{few} billion|{big} million",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December",
    "weekday": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "span": "week|month|year|decade|weekend",
    "colour": "red|green|blue|yellow|silver|black|white|purple|orange",
}
