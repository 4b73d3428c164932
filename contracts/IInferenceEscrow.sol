// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBatchSettlement} from "./escrow/IBatchSettlement.sol";
import {IEscrowLedger} from "./escrow/IEscrowLedger.sol";
import {IPaymentChannels} from "./escrow/IPaymentChannels.sol";
import {IRequestEscrows} from "./escrow/IRequestEscrows.sol";

/**
 * @title IInferenceEscrow
 * @notice Holds what users prepay for inference, and pays it to the providers who did the work.
 *
 * A user's deposit is spent in one of three ways:
 *
 * - an escrow for one request ({IRequestEscrows}), for single jobs;
 * - a channel and vouchers ({IPaymentChannels}), for users who can sign while they are served;
 * - a spending allowance ({IEscrowLedger-setSpendingAllowance}) that settled batches are charged to
 *   ({IBatchSettlement}), for users of an API key.
 *
 * Nothing is pushed to anybody: providers call {IEscrowLedger-withdraw}, users call {IEscrowLedger-withdrawDeposit}.
 */
interface IInferenceEscrow is IEscrowLedger, IRequestEscrows, IPaymentChannels, IBatchSettlement {}
