# A solver for tests: says that it is cvc5, answers what is asked at its start as cvc5 does, then whatever its script says.
# The script sets `later`, a function that is called for each further (check-sat), and may set NAME and VERSION.
NAME=${NAME:-cvc5}
VERSION=${VERSION:-1.4.2}
asked=0
while IFS= read -r line; do
    case $line in
    "(get-info :name)") printf '(:name "%s")\n' "$NAME" ;;
    "(get-info :version)") printf '(:version "%s")\n' "$VERSION" ;;
    "(check-sat)")
        asked=$((asked + 1))
        case $asked in
        1) echo "${FIRST:-sat}" ;;
        2) echo "${SECOND:-unsat}" ;;
        *) later ;;
        esac
        ;;
    "(get-model)") model ;;
    esac
done
