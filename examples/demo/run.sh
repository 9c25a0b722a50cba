#!/usr/bin/env bash
# The whole path in one go: a sample shop, its index and ranker, a server, and questions to it.
set -euo pipefail
cd "$(dirname "$0")/../.."
vitrine=.venv/bin/vitrine
config=examples/demo/vitrine.toml
address=127.0.0.1:50051
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "A sample shop of ${PRODUCTS:-5000} products"
$vitrine sample --products "${PRODUCTS:-5000}" --out demo/data

say "Index, ranker, release"
$vitrine rebuild --config $config --log demo/rebuild.jsonl

say "The server"
$vitrine serve --config $config 2>demo/serve.log &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
$vitrine status --address $address --wait 60 || { cat demo/serve.log; exit 1; }

say "Search"
$vitrine search "waterproof hiking boots" --address $address -n 5
$vitrine search "防水 登山靴" --address $address -n 5
$vitrine search "waterproof hiking boots" --max-price 80 --in-stock --facet brand --facet price --address $address -n 5

say "Recommend"
user=$(.venv/bin/python -c "import polars as p; e = p.read_parquet('demo/data/events.parquet'); print(e.filter(p.col('event_type') == 'purchase')['user_id'].drop_nulls().value_counts(sort=True, name='n')['user_id'][0])")
$vitrine recommend "$user" --address $address -n 5
$vitrine recommend somebody-new --address $address -n 5

say "Similar"
$vitrine similar P0000001 --address $address -n 5

say "Sold out and dearer: the next answer knows"
first=$($vitrine search "waterproof hiking boots" --json --address $address -n 1 | .venv/bin/python -c "import json, sys; print(json.load(sys.stdin)['hits'][0]['product']['id'])")
$vitrine product set "$first" --price 999 --out-of-stock --address $address
$vitrine search "waterproof hiking boots" --max-price 900 --in-stock --address $address -n 3

say "A new product and another title: found at once, and the new one put in front by a rule of examples/demo/rules.toml"
printf 'product_id,title,price,in_stock\nNEW1,Zephyrix carbon hiking poles,49.90,true\n%s,Zephyrix ridge boots,99.90,true\n' "$first" >demo/new.csv
$vitrine product upsert demo/new.csv --address $address
$vitrine search "zephyrix" --address $address -n 3
$vitrine search "hiking boots" --address $address -n 3

say "Stopped. Data and store are in demo/; \`vitrine --help\` shows what else there is."
