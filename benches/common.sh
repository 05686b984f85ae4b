# What benches/measure and benches/growth share: a broker of their own, figures, medians and ratios. Is sourced.
#
#   benches/measure [ROUNDS] [FILE]
#
# ROUNDS is how often everything is measured (3); FILE gets every result as a line of JSON (target/NAME.jsonl). A ratio
# is taken within a round, the table has the median of the rounds. TIDINGS is the binary (target/release/tidings);
# DIVIDE=100 makes every load a hundredth, to try the scripts themselves.
cd "$(dirname "$0")/.."
tidings=${TIDINGS:-target/release/tidings}
rounds=${1:-3}
raw=${2:-target/${0##*/}.jsonl}
divide=${DIVIDE:-1}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 [ROUNDS] [FILE]" >&2 && exit 2; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/tidings-bench.XXXXXX")
mkdir -p "$(dirname "$raw")"
: >"$raw"
: >"$dir/figures"
broker=""
result=""

stop() { # stop [SIGNAL]
  [ -z "$broker" ] || { kill "-${1:-TERM}" "$broker" && wait "$broker"; } 2>>"$dir/err" || true
  broker=""
}
trap 'stop; rm -rf "$dir"' EXIT

start() { # a broker on the data that is there
  : >"$dir/out"
  TIDINGS_LOG=tidings=warn "$tidings" serve --data "$dir/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$dir/out" &
  broker=$!
  until grep -q listening "$dir/out"; do
    kill -0 "$broker" || exit 1
    sleep 0.01
  done
  TIDINGS_URL=$(sed -n 's/.*public=\(http[^ ]*\).*/\1/p' "$dir/out")
  export TIDINGS_URL
}

fresh() { # a broker with an empty log
  stop
  rm -rf "$dir/data"
  start
}

part() { # part N: that many events, or fewer to try the script
  echo $(($1 / divide > 0 ? $1 / divide : 1))
}

bench() { # bench ARGUMENT...: measures; the line of JSON is in `result`
  result=$("$tidings" bench "$@" --json)
  printf '%s\n' "$result" >>"$raw"
}

floor() { # floor PART ARGUMENT...
  bench floor --dir "$dir" --seconds 2 --only "$@"
}

of() { # of KEY: that number of the result
  grep -o "\"$1\":[0-9.]*" <<<"$result" | head -n 1 | cut -d: -f2
}

note() { # note NAME VALUE: a figure of this round
  echo "$1 $2" >>"$dir/figures"
}

# note_all NAME KEY...: numbers of the result, as NAME.KEY
note_all() {
  local name=$1 key
  shift
  for key; do note "$name.$key" "$(of "$key")"; done
}

# Figures with the same name are those of the rounds, in order.
median() { # median NAME
  ratio "$1" ""
}

ratio() { # ratio NAME NAME: the median of what the first is of the second in its round
  awk -v a="$1" -v b="$2" '
    $1 == a { as[++n] = $2 }
    $1 == b { bs[++m] = $2 }
    END {
      for (i = 1; i <= n; i++) {
        v = b == "" ? as[i] : bs[i] > 0 ? as[i] / bs[i] : 0
        for (j = i; j > 1 && of[j - 1] > v; j--) of[j] = of[j - 1]
        of[j] = v
      }
      if (n == 0) exit 1
      printf "%.6f\n", n % 2 ? of[(n + 1) / 2] : (of[n / 2] + of[n / 2 + 1]) / 2
    }' "$dir/figures"
}

# How figures are written: of NAME, the median.
number() { # 1234567 as 1,234,567
  median "$1" | awk '{
    s = sprintf("%.0f", $1)
    for (at = length(s) - 3; at > 0; at -= 3) s = substr(s, 1, at) "," substr(s, at + 1)
    print s
  }'
}
ms() { # microseconds as ms
  median "$1" | awk '{ ms = $1 / 1000; printf(ms < 1 ? "%.2f ms\n" : ms < 10 ? "%.1f ms\n" : "%.0f ms\n", ms) }'
}
kb() { # bytes as KB
  median "$1" | awk '{ printf("%.1f KB\n", $1 / 1000) }'
}
share() { # share FIGURE FLOOR: how much of the floor it reaches
  ratio "$1" "$2" | awk '{ printf("%.2f\n", $1) }'
}
times() { # times FIGURE FLOOR: how many times the floor it takes
  ratio "$1" "$2" | awk '{ printf($1 < 10 ? "%.1f times\n" : "%.0f times\n", $1) }'
}
