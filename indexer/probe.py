"""A made-up catalogue and queries for it: what an encoder's faster forms are compared on."""

import random

# Department: its products, what they are made of, what they come with, their sizes.
_DEPARTMENTS = (
    (
        "cordless drill|claw hammer|circular saw blade|pipe wrench|laser level|paint roller|screwdriver set|shop vacuum"
        "|extension ladder|wood chisel|belt sander|tool chest|staple gun|tape measure|work gloves|safety goggles",
        "carbide tipped|forged steel|brushless|chrome vanadium|fibreglass|heavy duty|magnetic|aluminium",
        "with carrying case|with two batteries|for masonry and tile|with soft grip|left handed|for drywall",
        "18-Volt|7-1/4 in.|24 ft.|16 oz.|1/2 in. drive|25 ft.|40-Piece",
    ),
    (
        "pendant light|ceiling fan|towel bar|kitchen faucet|pedestal sink|shower curtain|toilet seat|wall mirror"
        "|door handle|mosaic tile|laminate flooring|cabinet hinge|roller blind|smoke alarm|bath mat|water heater",
        "porcelain|brushed nickel|frosted glass|polished chrome|solid brass|bamboo|composite|oil rubbed bronze",
        "with remote control|for small bathrooms|with pull down spray|soft close|easy to install|energy saving",
        "36 in. x 80 in.|12 in. x 24 in.|50 Gal.|3-Light|4 in.|48 in.|8.5 sq. ft. / case",
    ),
    (
        "frying pan|chef's knife|espresso machine|cake tin|salad bowl|electric kettle|lunch box|wine glass|rolling pin"
        "|cutting board|pepper mill|toaster oven|storage jar|tea towel|rice cooker|ice cream scoop",
        "stainless steel|cast iron|non-stick|hand blown glass|acacia wood|enamelled|silicone|stoneware",
        "dishwasher safe|with lid|for induction hobs|with measuring marks|set of four|with glass front",
        "28 cm|1.7 litre|12-cup|set of 6|750 ml|9 x 13 in.|5 quart",
    ),
    (
        "summer dress|denim jacket|running shoes|wool scarf|rain coat|leather belt|ankle boots|polo shirt|swim shorts"
        "|evening gown|baseball cap|yoga leggings|silk tie|knitted cardigan|hiking socks|sunglasses",
        "organic cotton|linen|merino|faux leather|waterproof|stretch|quilted|polarised",
        "for women|for men|for children|with hood|long sleeved|with zip pockets|wide fit|slim fit",
        "size 38|XL|M|size 42|one size|3-pack|age 7 to 8",
    ),
    (
        "wireless headphones|mechanical keyboard|phone case|power bank|graphics card|laptop sleeve|memory card|webcam"
        "|smart watch|bluetooth speaker|gaming mouse|hdmi cable|wifi router|action camera|e-reader|inkjet printer",
        "noise cancelling|usb-c|backlit|shockproof|4k|dual band|fast charging|low latency",
        "with microphone|for iPhone|for travel|with stand|30 hours of battery|compatible with Windows and Mac",
        "128 GB|10000 mAh|65W|27-inch|2 m|DDR5|13.3 in.",
    ),
    (
        "lawn mower|garden hose|bird feeder|patio umbrella|charcoal grill|raised planter|tomato seeds|hammock"
        "|solar lamp|pruning shears|compost bin|wheelbarrow|picnic table|fire pit|insect trap|potting soil",
        "galvanized|teak|rattan|cedar|weather resistant|terracotta|self watering|cordless",
        "for balconies|with cover|foldable|for roses and hedges|with wheels|seats six|frost proof",
        "20 in.|50 ft.|10 ft. x 12 ft.|1 cu. ft.|2-Pack|60 litre",
    ),
    (
        "building blocks|jigsaw puzzle|teddy bear|board game|toy train|doll house|paint set|kite|story book"
        "|balance bike|birthday candles|greeting cards|party bunting|wrapping paper|christmas bauble|photo frame",
        "wooden|hand painted|glitter|vintage|personalised|glow in the dark|felt|polkadot",
        "for toddlers|dinosaur design|1000 pieces|with gift box|for two to four players|woodland animals",
        "set of 12|A4|30 cm|pack of 20|small|jumbo",
    ),
    (
        "dog bed|cat litter|aquarium filter|face cream|electric toothbrush|hair dryer|shaving foam|perfume"
        "|vitamin c serum|dumbbell set|yoga mat|camping tent|sleeping bag|bicycle helmet|fishing rod|tennis racket",
        "hypoallergenic|unscented|memory foam|ultralight|carbon|professional|vegan|rechargeable",
        "for sensitive skin|for large breeds|for beginners|with travel bag|for four seasons|refill",
        "200 ml|5 kg|50 ml|4-person|large|2 x 10 lb|6 mm",
    ),
)  # fmt: skip
_BRANDS = (
    "Halden|Norvik|Trellis & Co|Ostara|BRIXWELL|Kestrel|Maro|Juniper Lane|Tekto|Vanta|Polder|Silverbrook|Quill|Arbo"
    "|Fenwick Pro|Zephyra|Lumio|Castor|Redfern|Oakhollow"
)
_COLOURS = (
    "black|white|navy blue|red|olive green|grey|pink|walnut|antique gold|turquoise|ivory|orange|clear|multicolour"
)
# Products, what they are made of, for whom, colours and sizes.
_CHINESE = (
    "保温杯|不粘锅|电饭煲|登山鞋|连衣裙|羽绒服|蓝牙耳机|充电宝|机械键盘|台灯|窗帘|床单|儿童积木|洗面奶|猫粮|瑜伽垫|行李箱|雨伞|电动牙刷|茶具",
    "不锈钢|纯棉|陶瓷|真皮|防水|便携|大容量|加厚",
    "女士|男士|儿童|家用|户外|送礼|学生|办公室",
    "黑色|白色|红色|蓝色|米色|粉色",
    "500毫升|42码|1.8米|3件套|20000毫安|5公斤|大号",
)


def titles() -> list[str]:
    """1,034 different titles of 148 kinds of products, always the same, as shops write them."""
    draw = random.Random(0)
    english = [_title(draw, noun, *rest) for nouns, *rest in _DEPARTMENTS for noun in nouns.split("|") * 7]
    chinese = [_chinese_title(draw, noun) for noun in _CHINESE[0].split("|") * 7]
    return list(dict.fromkeys(english + chinese))


def queries() -> list[str]:
    """60 queries as shoppers type them, always the same."""
    draw = random.Random(1)
    made = []
    for nouns, *words in _DEPARTMENTS:
        for noun in draw.sample(nouns.split("|"), 6):
            word = draw.choice([*words, _COLOURS, ""])
            made.append(f"{draw.choice(word.split('|'))} {noun}".strip())
    products, *words = _CHINESE
    return made + [draw.choice(draw.choice(words).split("|")) + noun for noun in draw.sample(products.split("|"), 12)]


def _title(draw: random.Random, noun: str, materials: str, details: str, sizes: str) -> str:
    def maybe(share: float, words: str, form: str = "{}") -> str:
        return form.format(draw.choice(words.split("|"))) if draw.random() < share else ""

    code = f"{draw.choice('ABDGKMRTX')}{draw.choice('CELNPSVZ')}-{draw.randrange(100, 9999)}"
    parts = (
        maybe(0.7, _BRANDS),
        maybe(0.15, code),
        maybe(0.5, sizes),
        maybe(0.7, materials),
        noun,
        maybe(0.5, details),
        maybe(0.4, _COLOURS, draw.choice(("in {}", "{}", "- {}"))),
        maybe(0.15, code, "({})"),
    )
    title = " ".join(filter(None, parts))
    return draw.choice((str.title, str.title, str.upper, str))(title)


def _chinese_title(draw: random.Random, noun: str) -> str:
    material, whom, colour, size = (draw.choice(words.split("|")) for words in _CHINESE[1:])
    return draw.choice(
        (f"{whom}{material}{noun} {colour} {size}", f"{material}{noun} {size}", f"{colour}{noun}{whom}款")
    )
