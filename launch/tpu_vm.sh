#!/usr/bin/env bash
# Trains pivq_jax on a Cloud TPU slice of any size with gcloud. From the root of the repository:
#
#   launch/tpu_vm.sh run --name=pivq --zone=us-west4-a --type=v5litepod-16 --spot -- \
#     --config=configs/ffhq.py --config.data.path=gs://BUCKET/data --workdir=gs://BUCKET/ffhq
#
# Commands:
#   run     all of the below in order; starts training again where it died, after a preemption on a
#           new slice
#   create  request the slice and wait until it is ready
#   setup   copy the committed code to every worker and install it
#   train   start training on every worker; it goes on when the connection ends
#   wait    wait for its end, with its exit code: 75 if the slice was lost, 5 if no training lives
#   logs    what the first worker printed; --follow goes on
#   delete  give the slice back: until then it is billed
#
# Options:
#   --name=NAME --zone=ZONE --type=TYPE   TYPE: v5litepod-16, v4-16, v5p-16, v6e-64, ...
#   --project=PROJECT    that of `gcloud config` by default
#   --runtime=VERSION    software of the machines; chosen by TYPE
#   --spot               cheaper, may be preempted at any moment
#   --direct             create at once or fail, rather than by a queued resource
#   --resumes=COUNT      how often `run` resumes before it gives up (100)
#   --max_hours=HOURS    after so many `run` has training write a checkpoint, ends it and deletes the
#                        slice; the same command goes on from there (no limit)
#   --poll=SECONDS       between two looks at the slice (60)
#   --patience=LOOKS     so many in a row without a sound answer from the workers, and `run`
#                        replaces the slice (30)
#   --keep               `run` does not delete the slice at the end
#   --dry_run            print the commands instead; the questions among them count as well answered
#   --follow             for `logs`
#
# What follows `--` goes to `python -m pivq_jax.main`; JAX_COMPILATION_CACHE_DIR, if a bucket, holds
# there, too. A --workdir of gs:// is needed to resume: the disks of a preempted slice are gone. Exit
# codes of `run`: 0 trained, 2 wrong arguments, 3 the slice could not be had, 4 set-up failed, 5
# training does not stay alive on a healthy slice, 6 trained, but the slice could not be deleted, 7
# out of --max_hours, 75 slices lost too often, 130 interrupted, and the slice goes on; any other is
# that of training. While Cloud TPU cannot be reached, `run` waits.
set -euo pipefail

readonly IDLE=5 BILLED=6 LATE=7 LOST=75 TERMINATED=143 # the last is that of training after SIGTERM
readonly TRIES=3 # looks at idle workers, starts that none survives, set-ups, and deletions
readonly TPU=(gcloud compute tpus tpu-vm) QUEUE=(gcloud compute tpus queued-resources)

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "$0"; }

fail() { # CODE MESSAGE
  echo "error: $2" >&2
  exit "$1"
}

# Prints a command as it could be pasted.
show() { printf '+ %s\n' "$(printf '%q ' "$@")" >&2; }

# The same, and runs it unless --dry_run.
do_it() {
  show "$@"
  if [[ -z "$dry_run" ]]; then "$@"; fi
}

runtime_of() {
  case "$1" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) fail 2 "the software for --type=$1 is not known here: give it as --runtime=VERSION" ;;
  esac
}

# Without the flags a connection that breaks without a word would be waited on for ever, and one to
# a host that is gone for minutes, ten times.
on_workers() { # WORKER COMMAND
  do_it "${TPU[@]}" ssh "$name" "${where[@]}" --worker="$1" --ssh-flag=-oServerAliveInterval=30 \
    --ssh-flag=-oConnectTimeout=10 --command="$2"
}

# Sets `state` to that of the slice, or of the request for it, and to GONE if there is none; fails
# with a `reason` if the question itself did, which says nothing about the slice.
ask_state() { # slice|request
  local question=("${TPU[@]}" describe "$name" "${where[@]}" --format='value(state)')
  state=READY # under --dry_run
  if [[ "$1" == request && -z "$direct" ]]; then
    question=("${QUEUE[@]}" describe "$name" "${where[@]}" --format='value(state.state)')
    state=ACTIVE
  fi
  show "${question[@]}"
  if [[ -n "$dry_run" ]] || state=$("${question[@]}" 2>"$scratch/reason"); then return; fi
  reason=$(<"$scratch/reason")
  [[ "$reason" == *NOT_FOUND* ]] || return 1
  state=GONE
}

# The same, but waits for an answer: meanwhile no slice could be watched, created or deleted either.
look_at() { # slice|request
  outage=''
  until ask_state "$1"; do
    outage=1
    echo "no answer about $name, asking again; it may be fine, and is billed: $reason" >&2
    sleep "$poll"
  done
}

# Whether the slice that was looked at does not come back.
is_lost() { [[ "$state" =~ ^(GONE|PREEMPTED|TERMINATED|STOPPING|STOPPED|DELETING|HIDING|HIDDEN)$ ]]; }

is_late() { [[ -n "$max_hours" ]] && ((SECONDS >= 3600 * max_hours)); }

# `run` deletes its slice at the end: the name must not be that of another one.
check_name_is_free() {
  ask_state request || fail 3 "whether $name exists could not be asked: $reason"
  [[ -n "$dry_run" || "$state" == GONE ]] ||
    fail 3 "$name exists: take up its watch with wait, or delete it first"
}

# Makes a request again, three times if the network was not down; one that was heard needs no second.
request() { # COMMAND...
  local try=1
  until do_it "$@"; do
    look_at request
    [[ "$state" == GONE ]] || return 0
    [[ -n "$outage" ]] || ((try++ < TRIES)) || return 3
    sleep "$poll"
  done
}

create() {
  if [[ -n "$direct" ]]; then
    request "${TPU[@]}" create "$name" "${where[@]}" --accelerator-type="$type" \
      --version="$runtime" ${spot:+--spot} || return
  else
    request "${QUEUE[@]}" create "$name" "${where[@]}" --node-id="$name" \
      --accelerator-type="$type" --runtime-version="$runtime" ${spot:+--spot} || return
  fi
  while true; do
    look_at request
    [[ "$state" != ACTIVE && "$state" != READY ]] || return 0
    if [[ "$state" =~ ^(SUSPENDING|SUSPENDED|PREEMPTED|TERMINATED)$ ]]; then
      echo "$name was taken back before it was ready: $state" >&2
      return "$LOST"
    fi
    if is_lost || [[ "$state" == FAILED ]]; then
      echo "the request for $type in $zone ended as $state: try another zone, size or time" >&2
      return 3
    fi
    ! is_late || return "$LATE"
    echo "request $name: $state" >&2
    sleep "$poll"
  done
}

setup() {
  local archive=$scratch/pivq_jax.tar.gz
  # Once for all slices of a run, which goes on with the code that it began with.
  [[ -s "$archive" ]] || do_it git -C "$(dirname "$0")/.." archive --output="$archive" HEAD ||
    { rm -f "$archive"; return 4; }
  do_it "${TPU[@]}" scp "$archive" "$name:pivq_jax.tar.gz" "${where[@]}" --worker=all \
    --scp-flag=-oServerAliveInterval=30 --scp-flag=-oConnectTimeout=10 || return 4
  # uv brings the Python that the image lacks.
  on_workers all "set -e; mkdir -p pivq_jax; tar -xzf pivq_jax.tar.gz -C pivq_jax; cd pivq_jax;\
 python3 -m pip install --user --quiet uv; ~/.local/bin/uv venv --quiet --clear --python 3.11 .venv;\
 ~/.local/bin/uv pip install --quiet --python .venv/bin/python\
 -r requirements.txt 'jax[tpu]' 'etils[epath-gcs]'" || return 4
}

# Training holds a lock on the file `training`, with its process group in it, for as long as any of
# it lives. A worker where it lives is left alone: after a broken connection gcloud repeats commands.
train() {
  local arguments program cache=''
  arguments=$(printf '%q ' "${arguments_of_main[@]}")
  if [[ "${JAX_COMPILATION_CACHE_DIR:-}" == gs://* ]]; then # a folder here may be none there
    cache="JAX_COMPILATION_CACHE_DIR=$(printf '%q' "$JAX_COMPILATION_CACHE_DIR")"
  fi
  # The shell outlives SIGTERM, to tell the exit code of training.
  program="exec 9>>../training; flock --timeout 2 9 || exit; echo \$\$ > ../training; trap : TERM;\
 $cache .venv/bin/python -m pivq_jax.main --distributed=auto $arguments; echo \$? > ../exit_code"
  on_workers all "cd pivq_jax; flock --nonblock ../training rm -f ../exit_code;\
 nohup setsid bash -c $(printf '%q' "$program") >> ../train.log 2>&1 < /dev/null &"
}

# Ends what is left of training: it cannot go on without the workers that died.
stop() {
  # shellcheck disable=SC2016 # the worker expands it
  local kill='kill -KILL -- "-$(cat training)"; flock --timeout 60 training rm -f exit_code'
  on_workers all "flock --nonblock training rm -f exit_code || { $kill; }"
}

# Has training write a checkpoint and end, as before a preemption; the slice may be gone meanwhile.
finish() {
  # shellcheck disable=SC2016 # the worker expands it
  on_workers all 'kill -TERM -- "-$(cat training)"; flock --timeout 600 training true' || true
}

# What training is on each worker, by line: its exit code, `running`, or `idle` if it neither lives
# nor left a code; nothing unless all have answered.
ask_workers() {
  # shellcheck disable=SC2016 # the worker expands it
  local answers code='echo exit_code $(grep -s . exit_code || echo idle)'
  answers=$(on_workers all "if flock --nonblock training true; then $code;\
 else echo exit_code running; fi") || return 0
  [[ -z "$dry_run" ]] || answers='exit_code 0'
  sed -n 's/.*exit_code \([0-9a-z]*\).*/\1/p' <<<"$answers"
}

# The exit code of training once all workers have ended.
wait_for_end() {
  local codes failed idle=0 unsound=0
  lived=''
  while true; do
    look_at slice
    if is_lost; then
      echo "the slice is $state" >&2
      return "$LOST"
    fi
    if is_late; then
      echo "$max_hours hours are over (--max_hours): training writes a checkpoint and ends" >&2
      finish
      return "$LATE"
    fi
    codes=''
    [[ "$state" != READY ]] || codes=$(ask_workers)
    # Where one fails the others are aborted, with a higher code that says less.
    failed=$(grep -x '[1-9][0-9]*' <<<"$codes" | sort -n | head -1) || true
    [[ "$codes" != *"$TERMINATED"* ]] || failed=$TERMINATED
    case "$codes" in
      *idle*) idle=$((idle + 1)) ;;
      *running*) idle=0 lived=1 ;;
      ?*) return "${failed:-0}" ;;
    esac
    if ((idle == TRIES)); then
      echo "the slice is $state, but training has died without an exit code, or never begun" >&2
      return "$IDLE"
    fi
    if [[ -n "$codes" && -z "$failed" ]]; then unsound=0; else unsound=$((unsound + 1)); fi
    if ((unsound == patience)); then
      [[ -z "$failed" ]] || return "$failed" # and the others hang
      echo "the slice is $state, but its workers have not answered $patience times" >&2
      return "$LOST"
    fi
    sleep "$poll"
  done
}

logs() {
  on_workers 0 "tail ${follow:+--follow} --lines=${1:-1000} train.log"
}

delete() {
  if [[ -n "$direct" ]]; then
    do_it "${TPU[@]}" delete "$name" "${where[@]}" --quiet
  else
    do_it "${QUEUE[@]}" delete "$name" "${where[@]}" --force --quiet
  fi
}

# Deletes the slice, however long the network is down.
give_back() {
  local try
  for ((try = 1; try <= TRIES; try++)); do
    delete && return
    look_at request
    [[ "$state" != GONE ]] || return 0
    sleep "$poll"
  done
  return "$BILLED"
}

is_billed() { # STATE
  echo "$1, and billed until deleted: $0 delete --name=$name ${where[*]}${direct:+ --direct}" >&2
}

# A new slice, trained on until training or the slice ends.
attempt() {
  local try=1
  create || return
  until setup; do
    look_at slice
    [[ "$state" == READY ]] || return "$LOST"
    ((try < TRIES)) || return 4
    try=$((try + 1))
    sleep "$poll"
  done
  train_and_wait
}

train_and_wait() {
  train || echo "starting failed or the connection broke; looking at the slice" >&2
  wait_for_end
}

# Starts training again on the same slice.
restart() {
  look_at slice
  ! is_lost || return "$LOST"
  stop || sleep "$poll"
  train_and_wait
}

run() {
  local code=0 resumed=0 fruitless=0
  check_name_is_free
  trap 'is_billed "$name is no longer watched ($0 wait does, but neither resumes nor deletes)"
    exit 130' INT TERM
  attempt || code=$?
  while [[ "$code" =~ ^($LOST|$TERMINATED|$IDLE)$ ]] && ((resumed < resumes)) && ! is_late; do
    if [[ "$code" != "$IDLE" || -n "$lived" ]]; then fruitless=0; else fruitless=$((fruitless + 1)); fi
    if ((fruitless == TRIES)); then
      echo "error: training was started $TRIES times and never seen alive: giving up" >&2
      break
    fi
    resumed=$((resumed + 1))
    echo "training stopped early; resuming, number $resumed of at most $resumes" >&2
    if [[ "$code" == "$LOST" ]]; then
      give_back || { sleep "$poll"; continue; } # still lost, which counts towards --resumes
      { code=0 && attempt; } || code=$?
    else
      { code=0 && restart; } || code=$?
    fi
  done
  if [[ ! "$code" =~ ^(0|3|$BILLED|$LATE|$LOST)$ ]]; then
    logs 50 || true
  fi
  if [[ -n "$keep" ]]; then
    is_billed "$name is kept"
  elif ! give_back; then
    is_billed "error: $name could not be deleted: it is there"
    [[ "$code" != 0 ]] || code=$BILLED
  fi
  return "$code"
}

command=${1:-}
[[ -n "$command" ]] || {
  usage >&2
  exit 2
}
shift
name='' zone='' type='' runtime='' spot='' direct='' keep='' dry_run='' follow=''
resumes=100 max_hours='' poll=60 patience=30 state='' reason='' outage='' lived='' arguments_of_main=() where=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --project=*) where+=("$1") ;;
    --runtime=*) runtime=${1#*=} ;;
    --resumes=*) resumes=${1#*=} ;;
    --max_hours=*) max_hours=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --patience=*) patience=${1#*=} ;;
    --spot) spot=1 ;;
    --direct) direct=1 ;;
    --keep) keep=1 ;;
    --dry_run) dry_run=1 ;;
    --follow) follow=1 ;;
    --)
      shift
      arguments_of_main=("$@")
      break
      ;;
    *) fail 2 "unknown option $1: see launch/tpu_vm.sh --help" ;;
  esac
  shift
done
case "$command" in
  -h | --help | help)
    usage
    exit 0
    ;;
  run | create | setup | train | wait | logs | delete) ;;
  *) fail 2 "unknown command $command: use run, create, setup, train, wait, logs or delete" ;;
esac
[[ -n "$name" && -n "$zone" ]] || fail 2 "give --name=NAME and --zone=ZONE"
where+=(--zone="$zone")
for count in "$resumes" "$poll"; do
  [[ "$count" =~ ^[0-9]+$ ]] || fail 2 "--resumes and --poll are whole numbers, not '$count'"
done
[[ "$max_hours" =~ ^([1-9][0-9]*)?$ ]] || fail 2 "--max_hours is a number from 1, not '$max_hours'"
[[ "$patience" =~ ^[1-9][0-9]*$ ]] || fail 2 "--patience is a number from 1, not '$patience'"
if [[ "$command" == run || "$command" == create ]]; then
  [[ -n "$type" ]] || fail 2 "give --type=TYPE, such as --type=v5litepod-16"
  runtime=${runtime:-$(runtime_of "$type")}
fi
if [[ "$command" == run || "$command" == train ]] && [[ ${#arguments_of_main[@]} == 0 ]]; then
  fail 2 "give the arguments of training after --"
fi
if [[ "$command" == run && " ${arguments_of_main[*]} " != *" --workdir=gs://"* ]]; then
  fail 2 "run resumes from the workdir, and local disks are lost: give --workdir=gs://BUCKET/RUN"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ "$command" == wait ]]; then
  code=0
  wait_for_end || code=$?
  [[ "$state" == GONE ]] || is_billed "$name is there"
  exit "$code"
fi
"$command"
