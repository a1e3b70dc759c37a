#!/usr/bin/env bash
# Trains pivq_jax on a Cloud TPU slice of any size with gcloud. From the root of the repository:
#
#   launch/tpu_vm.sh run --name=pivq --zone=us-west4-a --type=v5litepod-16 --spot -- \
#     --config=configs/ffhq.py --config.data.path=gs://BUCKET/data --workdir=gs://BUCKET/ffhq
#
# Commands:
#   run     all of the below in order; after a preemption it creates the slice again and resumes
#   create  request the slice and wait until it is ready
#   setup   copy the committed code to every worker and install it
#   train   start training on every worker; it goes on when the connection ends
#   wait    wait for its end, with its exit code: 75 if the slice was preempted
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
#   --poll=SECONDS       between two looks at the slice (60)
#   --keep               `run` does not delete the slice at the end
#   --dry_run            print the commands instead; the questions among them count as well answered
#   --follow             for `logs`
#
# What follows `--` goes to `python -m pivq_jax.main`. A --workdir of gs:// is needed to resume:
# the disks of a preempted slice are gone. Exit codes of `run`: 0 trained, 2 wrong arguments, 3 the
# slice could not be had, 4 set-up failed, 75 preempted too often; any other is that of training.
set -euo pipefail

readonly PREEMPTED=75 TERMINATED=143 # the latter is that of training after SIGTERM
readonly TPU=(gcloud compute tpus tpu-vm) QUEUE=(gcloud compute tpus queued-resources)

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; }

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

# The same for a question; under --dry_run the answer is the first argument.
ask() {
  local answer=$1
  shift
  show "$@"
  if [[ -n "$dry_run" ]]; then echo "$answer"; else "$@"; fi
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

on_workers() { # WORKER COMMAND
  do_it "${TPU[@]}" ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}

# `run` deletes its slice at the end: the name must not be that of another one.
check_name_is_free() {
  local question=("${QUEUE[@]}") answer
  [[ -z "$direct" ]] || question=("${TPU[@]}")
  question+=(describe "$name" "${where[@]}" --format='value(name)')
  show "${question[@]}"
  if [[ -n "$dry_run" ]]; then return; fi
  if answer=$("${question[@]}" 2>&1); then
    fail 3 "$name exists: take up its watch with wait, or delete it first"
  elif [[ "$answer" != *NOT_FOUND* ]]; then
    fail 3 "whether $name exists could not be asked: $answer"
  fi
}

node_state() {
  for _ in 1 2 3; do # one lost answer is no preemption
    ask READY "${TPU[@]}" describe "$name" "${where[@]}" --format='value(state)' && return
    sleep "$poll"
  done
  echo UNKNOWN
}

create() {
  local state
  if [[ -n "$direct" ]]; then
    do_it "${TPU[@]}" create "$name" "${where[@]}" --accelerator-type="$type" \
      --version="$runtime" ${spot:+--spot} || return 3
  else
    do_it "${QUEUE[@]}" create "$name" "${where[@]}" --node-id="$name" \
      --accelerator-type="$type" --runtime-version="$runtime" ${spot:+--spot} || return 3
    while true; do
      state=$(ask ACTIVE "${QUEUE[@]}" describe "$name" "${where[@]}" \
        --format='value(state.state)') || return 3
      case "$state" in
        ACTIVE) break ;;
        FAILED | SUSPENDING | SUSPENDED)
          echo "the request for $type in $zone ended as $state: try another zone, size or time" >&2
          return 3
          ;;
        *)
          echo "request $name: $state" >&2
          sleep "$poll"
          ;;
      esac
    done
  fi
}

setup() {
  local archive
  archive=$(mktemp -d)/pivq_jax.tar.gz
  do_it git -C "$(dirname "$0")/.." archive --output="$archive" HEAD || return 4
  do_it "${TPU[@]}" scp "$archive" "$name:pivq_jax.tar.gz" "${where[@]}" --worker=all || return 4
  rm -rf "$(dirname "$archive")"
  # uv brings the Python that the image lacks.
  on_workers all "set -e; mkdir -p pivq_jax; tar -xzf pivq_jax.tar.gz -C pivq_jax; cd pivq_jax;\
 python3 -m pip install --user --quiet uv; ~/.local/bin/uv venv --quiet --clear --python 3.11 .venv;\
 ~/.local/bin/uv pip install --quiet --python .venv/bin/python\
 -r requirements.txt 'jax[tpu]' 'etils[epath-gcs]'" || return 4
}

train() {
  local arguments
  arguments=$(printf '%q ' "${arguments_of_main[@]}")
  on_workers all "cd pivq_jax; rm -f ../exit_code;\
 nohup bash -c $(printf '%q' ".venv/bin/python -m pivq_jax.main --distributed=auto $arguments;\
 echo \$? > ../exit_code") >> ../train.log 2>&1 < /dev/null &"
}

# The exit code of training once all workers have ended.
wait_for_end() {
  local answers codes state
  while true; do
    state=$(node_state)
    [[ "$state" == READY ]] || {
      echo "the slice is $state" >&2
      return "$PREEMPTED"
    }
    # shellcheck disable=SC2016 # the worker expands it
    if answers=$(ask "exit_code 0" "${TPU[@]}" ssh "$name" "${where[@]}" --worker=all \
      --command='echo exit_code $(cat exit_code 2>/dev/null || echo none)'); then
      codes=$(sed -n 's/.*exit_code \([0-9a-z]*\).*/\1/p' <<<"$answers" | sort -n)
      if [[ -n "$codes" && "$codes" != *none* ]]; then
        [[ "$codes" != *"$TERMINATED"* ]] || return "$TERMINATED"
        # Where one fails the others are aborted, with a higher code that says less.
        codes=$(sed '/^0$/d' <<<"$codes" | head -1)
        return "${codes:-0}"
      fi
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

# A new slice, trained on until training or the slice ends.
attempt() {
  create || return
  if ! setup; then
    [[ "$(node_state)" == READY ]] && return 4
    return "$PREEMPTED"
  fi
  train_and_wait
}

train_and_wait() {
  train || echo "starting failed or the connection broke; looking at the slice" >&2
  wait_for_end
}

run() {
  local code=0 resumed=0
  check_name_is_free
  attempt || code=$?
  while [[ "$code" == "$PREEMPTED" || "$code" == "$TERMINATED" ]] && ((resumed < resumes)); do
    resumed=$((resumed + 1))
    echo "stopped by a preemption; resuming, number $resumed of at most $resumes" >&2
    if [[ "$code" == "$TERMINATED" && "$(node_state)" == READY ]]; then # only the hosts restarted
      code=0
      train_and_wait || code=$?
    else
      code=0
      delete || true
      attempt || code=$?
    fi
  done
  if [[ "$code" != 0 && "$code" != 3 && "$code" != "$PREEMPTED" ]]; then
    logs 50 || true
  fi
  if [[ -n "$keep" ]]; then
    echo "kept and billed: $0 delete --name=$name ${where[*]}${direct:+ --direct}" >&2
  else
    delete || echo "could not delete $name: it may still be billed" >&2
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
resumes=100 poll=60 arguments_of_main=() where=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --project=*) where+=("$1") ;;
    --runtime=*) runtime=${1#*=} ;;
    --resumes=*) resumes=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
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
[[ "$command" != wait ]] || command=wait_for_end
"$command"
