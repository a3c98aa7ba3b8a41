# Tasks for those who work on pyframe; `pip install rust-just` brings `just`.

# Check random graphs for so many seconds, under every instruction set of this machine.
fuzz seconds="3600" seed=`date +%s`:
    python tests/fuzz.py --seconds {{seconds}} --seed {{seed}}
