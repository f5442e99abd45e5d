#!/usr/bin/env bash
${comment}
#
#   bash ${call}                                    # everything from the corpus to error rates
#   bash ${call} --steps 100 --work /tmp/${name}    # a short try of every stage
#
#   --corpus PATH               the corpus: the folder or file that the recipe was written for, or a copy of it
set -euo pipefail
CDPATH="" cd -- "$$(dirname "$$0")"
. ${driver}

# The corpus, which local/data.sh reads. The rules of conf/normalise.yaml are applied to its transcripts.
corpus=${corpus}
data_options=corpus
path_options+=" corpus"
data_files=conf/normalise.yaml
data_title=${data_title}

# Model and training: conf/train.yaml.
conf=conf/train.yaml
${options}
run_recipe "$$@"
